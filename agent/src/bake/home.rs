//! Receives where an image lies and where its manifest goes; makes that place, if it is the image's own, before the image is
//! read.
//!
//! Made afterwards, the directory itself would be drift on every instance.

use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};

use super::{BakeArguments, BakeError};

/// A directory that was made; it goes again unless a manifest comes into it.
#[must_use]
pub(super) struct Home(Option<PathBuf>);

impl Home {
    /// Makes `/usr/lib/driftmark` of the image, if that is where the manifest goes and it is not there yet.
    pub(super) fn make(arguments: &BakeArguments) -> Result<Self, BakeError> {
        let output = &arguments.output;
        let is_home = arguments
            .root
            .as_deref()
            .is_some_and(|root| is_same(&root.join(HOME), output));
        if !is_home {
            return Ok(Home(None));
        }
        match fs::create_dir(output) {
            Ok(()) => Ok(Home(Some(output.clone()))),
            Err(error) if is_for_later(&error) => Ok(Home(None)),
            Err(source) => Err(BakeError::Write {
                path: output.clone(),
                source,
            }),
        }
    }

    /// The manifest is in it.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(made) = &self.0 {
            let _ = fs::remove_dir(made);
        }
    }
}

/// It is there, or its parents are yet to be made with it.
fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((absolute(one), absolute(other)), (Ok(one), Ok(other)) if one == other)
}

const HOME: &str = "usr/lib/driftmark";
