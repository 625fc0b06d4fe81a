//! Drifts that are open, each kept once: by its id, and by where it is.
//!
//! An instance may have a quarter of a million, and then more than one set of them: what is open, what is open by path, what
//! a pass has found. All of these point to the same drifts.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drift::TreePath;
use drift::attribution::Attribution;
use drift::finding::{Drift, DriftId};

use crate::scan::Look;

/// A drift with its id, which takes as long to make as the drift is large.
#[derive(Debug, Clone)]
pub struct Identified {
    /// Of [`Drift::id`].
    pub id: DriftId,
    /// Without who did it: that is kept beside it.
    pub drift: Drift,
}

impl From<Drift> for Identified {
    fn from(drift: Drift) -> Self {
        Identified {
            id: drift.id(),
            drift,
        }
    }
}

/// What is ordered by a part of itself.
trait Keyed {
    type Key<'k>: Ord
    where
        Self: 'k;

    fn key(&self) -> Self::Key<'_>;
}

/// By its key.
#[derive(Debug, Clone)]
struct By<K>(K);

impl<K: Keyed> Ord for By<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(&other.0.key())
    }
}

impl<K: Keyed> PartialOrd for By<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Keyed> PartialEq for By<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: Keyed> Eq for By<K> {}

/// By its id.
type ById = By<Arc<Identified>>;

impl Keyed for Arc<Identified> {
    type Key<'k> = DriftId;

    fn key(&self) -> DriftId {
        self.id
    }
}

impl Borrow<DriftId> for ById {
    fn borrow(&self) -> &DriftId {
        &self.0.id
    }
}

/// By its path, and then by its id.
#[derive(Debug, Clone)]
enum Place {
    /// Before all that are there.
    At(TreePath),
    Open(Arc<Identified>),
}

impl Keyed for Place {
    type Key<'k> = (&'k TreePath, Option<DriftId>);

    fn key(&self) -> Self::Key<'_> {
        match self {
            Place::At(path) => (path, None),
            Place::Open(it) => (&it.drift.path, Some(it.id)),
        }
    }
}

/// What is open, and who did it, as far as that was seen.
#[derive(Debug, Default)]
pub(super) struct Open {
    all: BTreeMap<ById, Option<Arc<Attribution>>>,
    /// The same by path, once that was asked for since all of it was replaced.
    places: Option<BTreeSet<By<Place>>>,
}

impl Open {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn has(&self, id: &DriftId) -> bool {
        self.all.contains_key(id)
    }

    /// One of them, and who did it.
    pub(super) fn get(
        &self,
        id: &DriftId,
    ) -> Option<(&Arc<Identified>, Option<&Arc<Attribution>>)> {
        let (it, by) = self.all.get_key_value(id)?;
        Some((&it.0, by.as_ref()))
    }

    /// All of them, by id.
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (&Arc<Identified>, Option<&Arc<Attribution>>)> {
        self.all.iter().map(|(it, by)| (&it.0, by.as_ref()))
    }

    pub(super) fn drifts(&self) -> impl Iterator<Item = &Drift> {
        self.all.keys().map(|it| &it.0.drift)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = DriftId> {
        self.all.keys().map(|it| it.0.id)
    }

    /// Opens one, or says anew who did it.
    pub(super) fn open(&mut self, it: Arc<Identified>, by: Option<Arc<Attribution>>) {
        if let Some(places) = &mut self.places {
            places.insert(By(Place::Open(Arc::clone(&it))));
        }
        self.all.insert(By(it), by);
    }

    pub(super) fn close(
        &mut self,
        id: &DriftId,
    ) -> Option<(Arc<Identified>, Option<Arc<Attribution>>)> {
        let (By(it), by) = self.all.remove_entry(id)?;
        if let Some(places) = &mut self.places {
            places.remove(&By(Place::Open(Arc::clone(&it))));
        }
        Some((it, by))
    }

    /// Makes all of it these. Who did what stays open is still known.
    pub(super) fn replace(&mut self, all: impl Iterator<Item = Arc<Identified>>) {
        let mut before = std::mem::take(&mut self.all);
        let with_by = |it: Arc<Identified>| {
            let by = before.remove(&it.id).flatten();
            (By(it), by)
        };
        self.all = all.map(with_by).collect();
        self.places = None;
    }

    /// Says who did what nobody is known to have done.
    pub(super) fn attribute(&mut self, who: impl Fn(&Drift) -> Option<Arc<Attribution>>) {
        let unknown = self.all.iter_mut().filter(|(_, by)| by.is_none());
        unknown.for_each(|(it, by)| *by = who(&it.0.drift));
    }

    /// What is open where was looked.
    pub(super) fn at(&mut self, look: &Look) -> impl Iterator<Item = &Arc<Identified>> {
        let all = &self.all;
        let places = self.places.get_or_insert_with(|| {
            let all = all.keys();
            all.map(|it| By(Place::Open(Arc::clone(&it.0)))).collect()
        });
        let from = places.range(By(Place::At(look.path.clone()))..);
        let open = from.filter_map(|place| match &place.0 {
            Place::Open(it) => Some(it),
            Place::At(_) => None,
        });
        open.take_while(|it| look.covers(&it.drift.path))
    }
}

/// What was open when a pass began: what it finds of that again is not kept a second time.
#[derive(Debug, Clone, Default)]
pub struct OpenBefore(Arc<[Arc<Identified>]>);

impl OpenBefore {
    pub(super) fn of(open: &Open) -> Self {
        OpenBefore(open.iter().map(|(it, _)| Arc::clone(it)).collect())
    }

    /// The drift as it was open, or as one that is new.
    pub fn identified(&self, drift: Drift) -> Arc<Identified> {
        let it = Identified::from(drift);
        match self.0.binary_search_by_key(&it.id, |open| open.id) {
            Ok(place) => Arc::clone(&self.0[place]),
            Err(_) => Arc::new(it),
        }
    }
}
