//! Receives a channel's history and what is known of its images, and hands on the last good one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use drift::Blake3;

use crate::judge::LastGood;

/// What a channel was pointed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What is known of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it is revoked.
    pub revoked: bool,
    /// When it expires, if it does.
    pub expires_ms: Option<i64>,
    /// Its builds.
    pub builds: BTreeMap<String, Build>,
}

/// What is known of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// BLAKE3 of its manifest's identity.
    pub manifest: Blake3,
    /// The keys that signed it.
    pub signers: Vec<String>,
}

/// The channel's current version if it is good; else the latest earlier assignment in its history (oldest first) that
/// is; else none.
///
/// A version is good if it is not revoked, has not expired, and a key that is not revoked signed it. Of a good version,
/// only the builds that such a key signed are good.
///
/// # Errors
/// A sentence that says why there is none.
pub fn last_good(
    channel: &str,
    history: &[Assignment],
    versions: &[Version],
    revoked_keys: &BTreeSet<String>,
    now_ms: i64,
) -> Result<LastGood, String> {
    let current = history
        .last()
        .ok_or_else(|| format!("channel {channel} has never had an image"))?;
    let good = |assigned: &Assignment| {
        let named = |version: &&Version| {
            version.name == assigned.name && version.version == assigned.version
        };
        let known = versions
            .iter()
            .find(named)
            .ok_or_else(|| "not registered".to_owned())?;
        known.good(revoked_keys, now_ms)
    };
    history
        .iter()
        .rev()
        .find_map(|assigned| good(assigned).ok())
        .ok_or_else(|| {
            let Assignment { name, version } = current;
            let why = good(current).err().unwrap_or_default();
            format!("{name} {version} of channel {channel} is {why}, and no earlier one is good")
        })
}

impl Version {
    fn good(&self, revoked_keys: &BTreeSet<String>, now_ms: i64) -> Result<LastGood, String> {
        if self.revoked {
            return Err("revoked".into());
        }
        if self.expires_ms.is_some_and(|expires| expires <= now_ms) {
            return Err("expired".into());
        }
        let signed = |build: &&Build| build.signers.iter().any(|key| !revoked_keys.contains(key));
        let builds: BTreeMap<_, _> = self
            .builds
            .iter()
            .filter(|(_, build)| signed(build))
            .map(|(name, build)| (name.clone(), build.manifest))
            .collect();
        if builds.is_empty() {
            return Err("signed by revoked keys only".into());
        }
        Ok(LastGood {
            name: self.name.clone(),
            version: self.version.clone(),
            builds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(number: &str, signers: &[&str]) -> Version {
        let build = Build {
            manifest: Blake3::of(number.as_bytes()),
            signers: signers.iter().map(ToString::to_string).collect(),
        };
        Version {
            name: "web".into(),
            version: number.into(),
            revoked: false,
            expires_ms: None,
            builds: BTreeMap::from([("amd64".into(), build)]),
        }
    }

    fn assigned(versions: &[&str]) -> Vec<Assignment> {
        versions
            .iter()
            .map(|version| Assignment {
                name: "web".into(),
                version: (*version).into(),
            })
            .collect()
    }

    fn good(history: &[&str], versions: &[Version], revoked: &[&str]) -> Result<String, String> {
        let revoked = revoked.iter().map(ToString::to_string).collect();
        last_good("stable", &assigned(history), versions, &revoked, 1_000).map(|good| good.version)
    }

    #[test]
    fn the_current_version_is_last_good_while_it_is_good() {
        let versions = [version("1", &["a"]), version("2", &["a"])];
        assert_eq!(good(&["1", "2"], &versions, &[]).as_deref(), Ok("2"));
        assert_eq!(
            good(&["2", "1"], &versions, &[]).as_deref(),
            Ok("1"),
            "current is the latest assigned, not the newest"
        );
    }

    #[test]
    fn a_revoked_or_expired_version_gives_way_to_the_latest_earlier_one() {
        let spoil: [fn(&mut Version); 2] = [
            |version| version.revoked = true,
            |version| version.expires_ms = Some(1_000),
        ];
        for spoil in spoil {
            let mut versions = [
                version("1", &["a"]),
                version("2", &["a"]),
                version("3", &["a"]),
            ];
            spoil(&mut versions[2]);
            assert_eq!(good(&["1", "2", "3"], &versions, &[]).as_deref(), Ok("2"));
            spoil(&mut versions[1]);
            assert_eq!(good(&["1", "2", "3"], &versions, &[]).as_deref(), Ok("1"));
        }
    }

    #[test]
    fn an_image_signed_only_by_revoked_keys_is_never_last_good() {
        let versions = [version("1", &["a"]), version("2", &["b", "c"])];
        assert_eq!(
            good(&["1", "2"], &versions, &["b"]).as_deref(),
            Ok("2"),
            "one key is left"
        );
        assert_eq!(
            good(&["1", "2"], &versions, &["b", "c"]).as_deref(),
            Ok("1")
        );
        let none = good(&["1", "2"], &versions, &["a", "b", "c"]).unwrap_err();
        assert_eq!(
            none,
            "web 2 of channel stable is signed by revoked keys only, and no earlier one is good"
        );
    }

    #[test]
    fn an_unsigned_build_is_signed_by_no_unrevoked_key() {
        assert!(good(&["1"], &[version("1", &[])], &[]).is_err());
    }

    #[test]
    fn a_version_that_the_channel_never_had_is_not_its_last_good() {
        let versions = [version("1", &["a"]), version("2", &["a"])];
        assert_eq!(
            good(&[], &versions, &[]),
            Err("channel stable has never had an image".into())
        );
        assert!(good(&["3"], &versions, &[]).is_err());
    }

    #[test]
    fn only_the_builds_that_a_good_key_signed_are_good() {
        let mut both = version("1", &["a"]);
        both.builds.insert(
            "arm64".into(),
            Build {
                manifest: Blake3::of(b"arm"),
                signers: vec!["b".into()],
            },
        );
        let good = last_good(
            "stable",
            &assigned(&["1"]),
            &[both],
            &BTreeSet::from(["b".into()]),
            0,
        )
        .unwrap();
        assert_eq!(good.builds.into_keys().collect::<Vec<_>>(), ["amd64"]);
    }

    proptest! {
        #[test]
        fn last_good_is_good_and_everything_assigned_after_it_is_not(
            history in prop::collection::vec(0..5usize, 0..10),
            revoked in prop::collection::vec(any::<bool>(), 5),
        ) {
            let versions: Vec<_> = revoked.iter().enumerate().map(|(number, &revoked)| {
                Version { revoked, ..version(&number.to_string(), &["a"]) }
            }).collect();
            let names: Vec<String> = history.iter().map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            match good(&names, &versions, &[]) {
                Ok(found) => {
                    let found: usize = found.parse().unwrap();
                    prop_assert!(!revoked[found]);
                    let at = history.iter().rposition(|&number| number == found).unwrap();
                    prop_assert!(history[at + 1..].iter().all(|&number| revoked[number]));
                }
                Err(_) => prop_assert!(history.iter().all(|&number| revoked[number])),
            }
        }
    }
}
