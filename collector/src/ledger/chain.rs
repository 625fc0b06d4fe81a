//! Receives recorded entries in order, and hands on the first link that does not hold, or the head.

use serde::{Deserialize, Serialize};

use super::{Hash, Recorded};

/// Keeps these hashes apart from every other use of BLAKE3.
const CONTEXT: &str = "driftmark ledger link v1";

/// One row of the ledger, as it lies in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The place that the row claims.
    pub sequence: u64,
    /// The canonical text.
    pub entry: String,
    /// The hash that was kept with it.
    pub hash: Hash,
}

impl Link {
    /// The hash of an entry that comes after `previous`.
    pub fn hash_after(previous: Hash, entry: &str) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(previous.as_bytes()).update(entry.as_bytes());
        hasher.finalize().into()
    }
}

/// The first link that does not hold.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error,
)]
#[error("entry {sequence} of the ledger {broken}")]
pub struct BrokenLink {
    /// Its place.
    pub sequence: u64,
    /// What is wrong with it.
    pub broken: Broken,
}

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Broken {
    /// No row has this place, and later ones are there.
    Missing,
    /// The text and the hash do not belong together after what came before: this entry, or the hash before it, was
    /// altered.
    Altered,
    /// The text says that it belongs elsewhere.
    Displaced,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Broken::Missing => "is missing",
            Broken::Altered => "was altered, or does not follow the one before it",
            Broken::Displaced => "was moved here from another place",
        })
    }
}

/// A chain that held to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    /// How many entries it has.
    pub entries: u64,
    /// The hash of the last one; zeros for an empty ledger.
    pub head: Hash,
    /// Where the head that was asked for lies: 0 for the empty ledger's.
    pub found_at: Option<u64>,
}

/// A walk along the chain, one link at a time.
#[derive(Debug)]
pub struct Chain {
    entries: u64,
    head: Hash,
    sought: Option<Hash>,
    found_at: Option<u64>,
}

impl Chain {
    /// What comes before the first entry.
    pub const GENESIS: Hash = Hash::from_bytes([0; 32]);

    /// A walk from the beginning, looking for a head that was noted earlier.
    pub fn new(sought: Option<Hash>) -> Self {
        let found_at = sought.filter(|&head| head == Self::GENESIS).map(|_| 0);
        Chain {
            entries: 0,
            head: Self::GENESIS,
            sought,
            found_at,
        }
    }

    /// Takes the next link.
    ///
    /// # Errors
    /// A link that does not follow the one before it.
    pub fn follow(&mut self, link: &Link) -> Result<(), BrokenLink> {
        let sequence = self.entries + 1;
        let broken = |broken| Err(BrokenLink { sequence, broken });
        if link.sequence != sequence {
            return broken(Broken::Missing);
        }
        match serde_json::from_str::<Recorded>(&link.entry) {
            Ok(recorded) if recorded.sequence != sequence => return broken(Broken::Displaced),
            Ok(_) => {}
            Err(_) => return broken(Broken::Altered),
        }
        if Link::hash_after(self.head, &link.entry) != link.hash {
            return broken(Broken::Altered);
        }
        self.entries = sequence;
        self.head = link.hash;
        if self.sought == Some(link.hash) {
            self.found_at = Some(sequence);
        }
        Ok(())
    }

    /// Ends the walk.
    pub fn finish(self) -> Walked {
        Walked {
            entries: self.entries,
            head: self.head,
            found_at: self.found_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn chain_of(count: u64) -> Vec<Link> {
        let mut previous = Chain::GENESIS;
        (1..=count)
            .map(|sequence| {
                let entry = Entry {
                    kind: "order-planned",
                    fleet: Some("web".into()),
                    subject: Some(format!("o-{sequence}")),
                    reason: "drifted".into(),
                    detail: json!({"generation": 1}),
                    actor: "collector".into(),
                };
                let entry = entry
                    .recorded(sequence, 1_000 + sequence as i64)
                    .to_canonical();
                previous = Link::hash_after(previous, &entry);
                Link {
                    sequence,
                    entry,
                    hash: previous,
                }
            })
            .collect()
    }

    fn walk(links: &[Link], sought: Option<Hash>) -> Result<Walked, BrokenLink> {
        let mut chain = Chain::new(sought);
        links.iter().try_for_each(|link| chain.follow(link))?;
        Ok(chain.finish())
    }

    #[test]
    fn an_untouched_chain_holds_and_gives_its_head() {
        let links = chain_of(5);
        let walked = walk(&links, Some(links[2].hash)).unwrap();
        assert_eq!(
            walked,
            Walked {
                entries: 5,
                head: links[4].hash,
                found_at: Some(3)
            }
        );
    }

    #[test]
    fn an_altered_entry_is_the_first_broken_link() {
        let mut links = chain_of(5);
        links[2].entry = links[2].entry.replace("drifted", "clean");
        assert_eq!(
            walk(&links, None),
            Err(BrokenLink {
                sequence: 3,
                broken: Broken::Altered
            })
        );
    }

    #[test]
    fn an_altered_entry_with_a_hash_to_match_breaks_the_next_link() {
        let mut links = chain_of(5);
        links[2].entry = links[2].entry.replace("drifted", "clean");
        links[2].hash = Link::hash_after(links[1].hash, &links[2].entry);
        assert_eq!(
            walk(&links, None),
            Err(BrokenLink {
                sequence: 4,
                broken: Broken::Altered
            })
        );
    }

    #[test]
    fn a_removed_entry_is_missing() {
        let mut links = chain_of(5);
        links.remove(1);
        assert_eq!(
            walk(&links, None),
            Err(BrokenLink {
                sequence: 2,
                broken: Broken::Missing
            })
        );
    }

    #[test]
    fn swapped_entries_are_displaced_even_when_their_rows_are_numbered_anew() {
        let mut links = chain_of(5);
        links.swap(1, 2);
        links[1].sequence = 2;
        links[2].sequence = 3;
        assert_eq!(
            walk(&links, None),
            Err(BrokenLink {
                sequence: 2,
                broken: Broken::Displaced
            })
        );
    }

    #[test]
    fn a_chain_that_was_cut_off_holds_but_has_lost_the_head_that_was_noted() {
        let links = chain_of(5);
        assert_eq!(
            walk(&links[..3], Some(links[4].hash)).unwrap().found_at,
            None
        );
    }

    #[test]
    fn a_chain_that_was_rewritten_from_the_middle_has_lost_the_head_that_was_noted() {
        let links = chain_of(5);
        let mut forged = links.clone();
        for index in 2..5 {
            forged[index].entry = forged[index].entry.replace("drifted", "clean");
            forged[index].hash = Link::hash_after(forged[index - 1].hash, &forged[index].entry);
        }
        assert_eq!(walk(&forged, Some(links[4].hash)).unwrap().found_at, None);
    }

    #[test]
    fn the_link_format_is_golden() {
        assert_eq!(
            chain_of(1)[0].entry,
            concat!(
                r#"{"actor":"collector","at_ms":1001,"detail":{"generation":1},"fleet":"web","kind":"order-planned","#,
                r#""reason":"drifted","sequence":1,"subject":"o-1"}"#
            )
        );
        assert_eq!(
            chain_of(1)[0].hash.to_string(),
            "1fa78f75ebeb1a5e43fcfba81a1c698daf060f2d0dc62ad9c355461ebe10da21"
        );
    }

    proptest! {
        #[test]
        fn any_changed_byte_anywhere_is_found(row in 0..6usize, at in 0..100usize, flip in 1..=255u8) {
            let mut links = chain_of(6);
            let mut bytes = links[row].entry.clone().into_bytes();
            bytes[at] ^= flip;
            prop_assume!(std::str::from_utf8(&bytes).is_ok());
            links[row].entry = String::from_utf8(bytes).unwrap();
            prop_assert!(walk(&links, None).is_err_and(|broken| broken.sequence == row as u64 + 1));
        }
    }
}
