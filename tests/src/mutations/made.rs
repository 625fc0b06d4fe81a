//! Rows that are made: for each flag, kind and odd name, and deep down.

use super::base::{LONG_NAME, ODD_NAMES};
use super::{DEPTH, Mutation};

/// Those that are made for each flag, kind and odd name, and deep down.
pub fn made() -> Vec<Mutation> {
    let rows = flags().into_iter().chain(kinds()).chain(odd_names());
    rows.chain(deep()).collect()
}

fn mutation(name: &str, make: String, undo: String, drifts: &[String]) -> Mutation {
    Mutation {
        name: name.to_owned(),
        make,
        undo,
        drifts: drifts.to_vec(),
    }
}

/// Each flag that ext4 takes, set where it was not and taken from where it was.
fn flags() -> Vec<Mutation> {
    let set = [
        ("i", "data/plain"),
        ("a", "data/plain"),
        ("d", "data/plain"),
        ("A", "data/plain"),
        ("S", "data/plain"),
        ("c", "data/plain"),
        ("i", "opt/empty"),
        ("a", "opt/empty"),
        ("D", "opt/empty"),
        ("S", "opt/empty"),
        ("P", "opt/empty"),
        ("i", "."),
    ];
    let gone = [
        ("d", "data/flagged"),
        ("A", "data/flagged"),
        ("i", "data/locked"),
    ];
    let row = |first: char, then: char, letter: &str, path: &str| {
        let shown = path.trim_start_matches('.');
        mutation(
            &format!("chattr {first}{letter} {path}"),
            format!("chattr {first}{letter} {path}"),
            format!("chattr {then}{letter} {path}"),
            &[format!("changed /{shown} flags")],
        )
    };
    let set = set
        .into_iter()
        .map(|(letter, path)| row('+', '-', letter, path));
    set.chain(
        gone.into_iter()
            .map(|(letter, path)| row('-', '+', letter, path)),
    )
    .collect()
}

/// A file replaced by every other kind, with the same mode where the kind has one.
fn kinds() -> Vec<Mutation> {
    let kinds = [
        ("FIFO", "mkfifo -m 644 etc/hosts", "kind"),
        ("socket", "socket etc/hosts; chmod 644 etc/hosts", "kind"),
        ("link", "ln -s passwd etc/hosts", "kind mode"),
        (
            "link to the file itself",
            "ln -s $KEEP/kept-hosts etc/hosts",
            "kind mode",
        ),
        ("directory", "mkdir -m 644 etc/hosts", "kind"),
        ("character device", "mknod -m 644 etc/hosts c 1 5", "kind"),
        ("block device", "mknod -m 644 etc/hosts b 7 0", "kind"),
    ];
    let row = |(kind, make, changed): (&str, &str, &str)| {
        let undo = "rm -rf etc/hosts; back etc/hosts".to_owned();
        mutation(
            &format!("a file replaced by a {kind}"),
            format!("keep etc/hosts; {make}"),
            undo,
            &[format!("changed /etc/hosts {changed}")],
        )
    };
    kinds.into_iter().map(row).collect()
}

/// Each odd name: changed, gone, and new.
fn odd_names() -> Vec<Mutation> {
    let mut rows = Vec::new();
    let long = "n".repeat(255);
    let names = ODD_NAMES
        .iter()
        .map(|name| (name.bash, name.shown))
        .chain([(LONG_NAME, &*long)]);
    for (bash, shown) in names {
        let file = format!("names/{bash}");
        let named = |what: &str| format!("{what} {shown}");
        rows.push(mutation(
            &named("mode of"),
            format!("chmod 600 {file}"),
            format!("chmod 644 {file}"),
            &[format!("changed /names/{shown} mode")],
        ));
        rows.push(mutation(
            &named("content of"),
            format!("poke {file} 0 O"),
            format!("poke {file} 0 {}", if shown == long { "l" } else { "o" }),
            &[format!("changed /names/{shown} content")],
        ));
        rows.push(mutation(
            &named("gone:"),
            format!("mv {file} $KEEP/odd"),
            format!("mv $KEEP/odd {file}"),
            &[format!("removed /names/{shown}")],
        ));
        let new = format!("opt/empty/{bash}");
        rows.push(mutation(
            &named("new:"),
            format!("mkdir {new}; touch {new}/{bash}"),
            format!("rm -r {new}"),
            &[
                format!("added /opt/empty/{shown}"),
                format!("added /opt/empty/{shown}/{shown}"),
            ],
        ));
    }
    rows
}

/// Deeper than a system call can name.
fn deep() -> Vec<Mutation> {
    let directory = format!("/{}", "d".repeat(200)).repeat(DEPTH);
    let row = |name: &str, make: &str, undo: &str, drift: &str| {
        mutation(
            name,
            format!("deep '{make}'"),
            format!("deep '{undo}'"),
            &[drift.replace("DEEP", &directory)],
        )
    };
    vec![
        row(
            "content, deep",
            "open F, q(>>leaf); print F q(x)",
            "truncate q(leaf), 5 or die",
            "changed DEEP/leaf size content",
        ),
        row(
            "mode, deep",
            "chmod 0600, q(leaf) or die",
            "chmod 0644, q(leaf) or die",
            "changed DEEP/leaf mode",
        ),
        row(
            "new, deep",
            "mkdir q(new) or die",
            "rmdir q(new) or die",
            "added DEEP/new",
        ),
        row(
            "mode of a directory, deep",
            "chmod 0700, q(.) or die",
            "chmod 0755, q(.) or die",
            "changed DEEP mode",
        ),
    ]
}
