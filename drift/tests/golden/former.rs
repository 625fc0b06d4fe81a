//! Manifests of former versions: kept as they were, and refused by name.

use drift::manifest::{Identity, ManifestError, UnverifiedManifest};

use super::kept;

/// Identity of the golden manifest of version 1.
const SHA256: &str = "7b4b2fe8839dd74b58da41ebeaa6326a9ec3b889cf744e5f17018f96cad01546";
const BLAKE3: &str = "a3efd448e7d443742902d4a78281a7ef32821044ac98b5213a77de979ddbd197";

pub(crate) fn identity() -> Identity {
    Identity {
        sha256: SHA256.parse().unwrap(),
        blake3: BLAKE3.parse().unwrap(),
    }
}

#[test]
fn a_manifest_of_version_1_is_refused_and_the_error_says_what_to_do() {
    for name in ["manifest-v1.manifest", "measured-v1.manifest"] {
        let error = UnverifiedManifest::open(&kept(name)).unwrap_err();
        assert!(
            matches!(error, ManifestError::Version(1)),
            "{name}: {error}"
        );
        let told = error.to_string();
        for word in ["version 1", "version 2", "bake the image again"] {
            assert!(told.contains(word), "{told}");
        }
    }
}
