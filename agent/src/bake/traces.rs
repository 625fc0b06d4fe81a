//! Receives an image; hands on what an instance left in it, which every instance of the image would then share.
//!
//! What the agent itself left is refused: two instances with one identity are one to the collector. The rest is told, with
//! how to clean it. Collected from `cloud-init clean`, `waagent -deprovision`, virt-sysprep(1) and EC2 Image Builder's
//! clean-up script.

use drift::{TreePath, escape};
use driftmark_kernel::FileKind;
use serde::Serialize;

use super::glance::Glance;

/// Something in an image that belongs to one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Where, escaped.
    pub path: String,
    /// Why it should not be there.
    pub reason: &'static str,
    /// The command that cleans it, in the image.
    pub clean: String,
}

/// The first thing that an agent left in its state directory; none if there is nothing but directories.
pub(super) fn of_agent(image: Glance<'_>) -> Option<String> {
    let mut waiting = vec![STATE.to_vec()];
    for _ in 0..MAX_DIRECTORIES {
        let path = waiting.pop()?;
        let Ok(found) = image.look(&path) else {
            continue;
        };
        if found.kind != FileKind::Directory {
            return Some(absolute(&path));
        }
        let names = image.names(&path).unwrap_or_default();
        waiting.extend(names.iter().map(|name| [&path, &b"/"[..], name].concat()));
    }
    Some(absolute(STATE))
}

/// What an instance left, in the order of the table below.
pub(super) fn of_instance(image: Glance<'_>) -> Vec<Trace> {
    let homes = homes(image);
    let mut traces = Vec::new();
    for known in &KNOWN {
        for path in known
            .paths
            .iter()
            .flat_map(|path| places(image, &homes, path))
        {
            let is_left = match known.sign {
                Sign::Filled => is_filled(image, &path),
                Sign::MachineId => is_machine_id(image, &path),
                Sign::Token => has_token(image, &path),
            };
            if is_left {
                let path = absolute(&path);
                traces.push(Trace {
                    clean: known.clean.replace("FILE", &path),
                    reason: known.reason,
                    path,
                });
            }
        }
    }
    traces.truncate(MAX_TRACES);
    traces
}

/// Whether the content of what is at a path says whether it is a trace.
pub(super) fn reads(path: &TreePath) -> bool {
    is_place(path.as_bytes(), |known| known.sign != Sign::Filled)
}

/// Whether what is at a path, or that there is something in it, says that it is a trace.
pub(super) fn looks_at(path: &TreePath) -> bool {
    let parent = path.parent();
    path.as_bytes().starts_with(STATE)
        || is_place(path.as_bytes(), |_| true)
        || parent.is_some_and(|parent| is_place(parent.as_bytes(), |_| true))
}

fn is_place(path: &[u8], which: impl Fn(&Known) -> bool) -> bool {
    let of_home = path.strip_prefix(b"home/").and_then(|rest| {
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        Some(&rest[slash..])
    });
    let of_home = of_home.or(path.strip_prefix(b"root"));
    let is = |pattern: &str, path: &[u8]| {
        let split = |path: &[u8]| {
            path.iter()
                .rposition(|byte| *byte == b'/')
                .map_or(0, |at| at + 1)
        };
        let (own, name) = path.split_at(split(path));
        let (directory, pattern) = pattern.as_bytes().split_at(split(pattern.as_bytes()));
        own == directory && fits(pattern, name)
    };
    KNOWN.iter().filter(|known| which(known)).any(|known| {
        known
            .paths
            .iter()
            .any(|pattern| match pattern.strip_prefix('~') {
                Some(pattern) => of_home.is_some_and(|path| is(pattern, path)),
                None => is(pattern, path),
            })
    })
}

/// How a trace is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// A file that is not empty, a directory with something in it, or anything else that is there.
    Filled,
    /// A file with a machine id in it.
    MachineId,
    /// A file that holds a join token.
    Token,
}

struct Known {
    /// Below the root; `~` is any home, and the last name may have one `*`.
    paths: &'static [&'static str],
    sign: Sign,
    reason: &'static str,
    clean: &'static str,
}

const fn filled(
    paths: &'static [&'static str],
    reason: &'static str,
    clean: &'static str,
) -> Known {
    Known {
        paths,
        sign: Sign::Filled,
        reason,
        clean,
    }
}

const KNOWN: [Known; 22] = [
    Known {
        paths: &["etc/machine-id"],
        sign: Sign::MachineId,
        reason: "every instance would have this machine id, and DHCP, logs and licences take them for one",
        clean: "truncate -s 0 /etc/machine-id",
    },
    Known {
        paths: &["var/lib/dbus/machine-id"],
        sign: Sign::MachineId,
        reason: "every instance would have this machine id",
        clean: "rm -f /var/lib/dbus/machine-id",
    },
    Known {
        paths: &[
            "etc/driftmark/*",
            "etc/driftmark/agent.d/*",
            "usr/lib/driftmark/agent.d/*",
            "run/driftmark/agent.d/*",
            "etc/credstore/*",
            "usr/lib/credstore/*",
            "etc/systemd/system/driftmark-agent.service.d/*",
            "etc/cloud/cloud.cfg.d/*",
            "root/*",
            "tmp/*",
            "var/tmp/*",
        ],
        sign: Sign::Token,
        reason: "whoever reads the image can enrol with this join token",
        clean: "rm -f FILE, and revoke the token at the collector",
    },
    filled(
        &["etc/ssh/ssh_host_*"],
        "every instance would have this host key, and whoever reads the image can pose as any of them",
        "rm -f /etc/ssh/ssh_host_*",
    ),
    filled(
        &["~/.ssh/authorized_keys", "~/.ssh/authorized_keys2"],
        "these keys open every instance; image builders leave their own here",
        "rm -f FILE",
    ),
    filled(
        &["~/.ssh/id_*"],
        "whoever reads the image has this user's key",
        "rm -f FILE",
    ),
    filled(
        &[
            "~/.bash_history",
            "~/.zsh_history",
            "~/.ash_history",
            "~/.ksh_history",
            "~/.sh_history",
            "~/.python_history",
            "~/.mysql_history",
            "~/.psql_history",
            "~/.local/share/fish/fish_history",
        ],
        "what was typed while the image was built, with any secret in it",
        "rm -f FILE (unset HISTFILE first)",
    ),
    filled(
        &[
            "var/lib/cloud/instance",
            "var/lib/cloud/instances",
            "var/lib/cloud/data",
            "var/lib/cloud/sem",
        ],
        "cloud-init would take an instance for the builder, and keep its user data",
        "cloud-init clean --logs",
    ),
    filled(
        &["var/lib/systemd/random-seed"],
        "every instance would begin with the same randomness",
        "rm -f /var/lib/systemd/random-seed",
    ),
    filled(
        &["var/lib/urandom/random-seed", "var/lib/random-seed"],
        "every instance would begin with the same randomness",
        "rm -f FILE",
    ),
    filled(
        &[
            "boot/efi/loader/random-seed",
            "efi/loader/random-seed",
            "boot/loader/random-seed",
        ],
        "every instance would begin with the same randomness",
        "rm -f FILE",
    ),
    filled(
        &["var/lib/systemd/credential.secret"],
        "whoever reads the image can decrypt every instance's credentials",
        "rm -f /var/lib/systemd/credential.secret",
    ),
    filled(
        &[
            "var/lib/dhcp/*",
            "var/lib/dhclient/*",
            "var/lib/dhcpcd/*",
            "var/lib/NetworkManager/*.lease",
            "var/lib/NetworkManager/internal-*",
        ],
        "a lease and DUID of the builder: instances would ask for its address",
        "rm -rf FILE",
    ),
    filled(
        &["var/lib/NetworkManager/secret_key"],
        "every instance would derive the same addresses and DHCP ids",
        "rm -f /var/lib/NetworkManager/secret_key",
    ),
    filled(
        &[
            "etc/udev/rules.d/70-persistent-net.rules",
            "etc/udev/rules.d/75-persistent-net-generator.rules",
        ],
        "network names by the builder's hardware addresses",
        "rm -f FILE",
    ),
    filled(
        &["etc/hostid"],
        "every instance would have this host id (ZFS, licences)",
        "rm -f /etc/hostid",
    ),
    filled(
        &[
            "etc/nvme/hostid",
            "etc/nvme/hostnqn",
            "etc/iscsi/initiatorname.iscsi",
        ],
        "every instance would be the same to the storage that it shares",
        "rm -f FILE",
    ),
    filled(
        &["var/lib/waagent/*"],
        "the Azure agent's state and certificates of the builder",
        "waagent -deprovision -force",
    ),
    filled(
        &["var/lib/amazon/ssm/*"],
        "the Systems Manager agent's registration of the builder",
        "rm -rf /var/lib/amazon/ssm/*",
    ),
    filled(
        &["etc/pki/consumer/key.pem", "etc/sysconfig/rhn/systemid"],
        "the builder's subscription",
        "subscription-manager unregister; subscription-manager clean",
    ),
    filled(
        &[
            "etc/puppetlabs/puppet/ssl/private_keys/*",
            "var/lib/puppet/ssl/private_keys/*",
            "etc/chef/client.pem",
            "etc/salt/pki/minion/minion.pem",
            "var/lib/tailscale/tailscaled.state",
        ],
        "every instance would be the builder to what manages it",
        "rm -f FILE",
    ),
    filled(
        &[
            "root/.aws/credentials",
            "root/.azure/*",
            "root/.config/gcloud/credentials.db",
            "root/.docker/config.json",
        ],
        "the builder's credentials: whoever reads the image has them",
        "rm -rf FILE",
    ),
];

const STATE: &[u8] = b"var/lib/driftmark";
/// An agent's state has a handful.
const MAX_DIRECTORIES: usize = 1000;
/// More than anyone reads.
const MAX_TRACES: usize = 200;
/// More homes than an image has.
const MAX_HOMES: usize = 100;
/// What a join token begins with.
const TOKEN: &[u8] = b"dmjt1.";
/// Configuration is shorter than this.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

fn absolute(path: &[u8]) -> String {
    escape(&[b"/", path].concat())
}

fn homes(image: Glance<'_>) -> Vec<Vec<u8>> {
    let users = image.names(b"home").unwrap_or_default();
    let users = users.iter().map(|name| [b"home/", &name[..]].concat());
    std::iter::once(b"root".to_vec())
        .chain(users)
        .take(MAX_HOMES)
        .collect()
}

/// The places that a path of the table stands for.
fn places(image: Glance<'_>, homes: &[Vec<u8>], path: &str) -> Vec<Vec<u8>> {
    if let Some(rest) = path.strip_prefix('~') {
        let homes = homes.iter().map(|home| [home, rest.as_bytes()].concat());
        return homes.flat_map(|path| starred(image, path)).collect();
    }
    starred(image, path.as_bytes().to_vec())
}

fn starred(image: Glance<'_>, path: Vec<u8>) -> Vec<Vec<u8>> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (directory, pattern) = path.split_at(slash.map_or(0, |slash| slash + 1));
    if !pattern.contains(&b'*') {
        return vec![path];
    }
    let names = image.names(directory.strip_suffix(b"/").unwrap_or(directory));
    let names = names.unwrap_or_default().into_iter();
    names
        .filter(|name| fits(pattern, name))
        .map(|name| [directory, &name].concat())
        .collect()
}

/// Whether a name is what a pattern with at most one `*` stands for.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        Some(star) => {
            let (before, after) = (&pattern[..star], &pattern[star + 1..]);
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        }
        None => pattern == name,
    }
}

fn is_filled(image: Glance<'_>, path: &[u8]) -> bool {
    match image.look(path) {
        Err(_) => false,
        Ok(found) => match found.kind {
            FileKind::File => found.size > 0,
            FileKind::Directory => image.names(path).is_ok_and(|names| !names.is_empty()),
            _ => true,
        },
    }
}

/// Empty and `uninitialized` are what images are to have (machine-id(5)); a link leads to the other one.
fn is_machine_id(image: Glance<'_>, path: &[u8]) -> bool {
    let content = image.read(path, MAX_TOKEN_FILE).unwrap_or_default();
    !matches!(content.trim_ascii(), b"" | b"uninitialized")
}

fn has_token(image: Glance<'_>, path: &[u8]) -> bool {
    let is_file = image
        .look(path)
        .is_ok_and(|found| found.kind == FileKind::File);
    let content = is_file.then(|| image.read(path, MAX_TOKEN_FILE).unwrap_or_default());
    content.is_some_and(|content| content.windows(TOKEN.len()).any(|window| window == TOKEN))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::scan::filesystems::Filesystems;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn open(root: &Path) -> Filesystems {
        Filesystems::open(root, &[], &[]).unwrap()
    }

    #[test]
    fn an_image_that_was_cleaned_has_no_traces() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        write(root, "etc/machine-id", "uninitialized\n");
        write(root, "root/.bash_history", "");
        write(root, "etc/driftmark/agent.d/x.toml", "[enroll]\n");
        fs::create_dir_all(root.join("var/lib/cloud/instances")).unwrap();
        fs::create_dir_all(root.join("var/lib/driftmark/identity")).unwrap();
        assert_eq!(of_instance(Glance(&open(root))), []);
        assert_eq!(of_agent(Glance(&open(root))), None);
        write(root, "etc/machine-id", "");
        assert_eq!(of_instance(Glance(&open(root))), []);
    }

    #[test]
    fn every_trace_is_told_with_its_path() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for known in &KNOWN {
            for path in known.paths {
                let content = match known.sign {
                    Sign::Token => "token = \"dmjt1.abc\"",
                    _ => "0123456789abcdef0123456789abcdef\n",
                };
                let path = path.replace('~', "home/a").replace('*', "x");
                write(root, &path, content);
            }
        }
        let told: Vec<String> = of_instance(Glance(&open(root)))
            .into_iter()
            .map(|trace| trace.path)
            .collect();
        for known in &KNOWN {
            for path in known.paths {
                let path = format!("/{}", path.replace('~', "home/a").replace('*', "x"));
                assert!(told.contains(&path), "{path} in {told:?}");
            }
        }
    }

    #[test]
    fn whatever_an_agent_left_is_found_however_deep() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "var/lib/driftmark/identity/instance.key", "");
        let found = of_agent(Glance(&open(place.path())));
        assert_eq!(
            found.as_deref(),
            Some("/var/lib/driftmark/identity/instance.key")
        );
    }
}
