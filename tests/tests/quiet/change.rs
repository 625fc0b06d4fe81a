//! One real change on an instance: what is done, and what both the agent and the collector have to say of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use serde_json::Value;

use crate::ground::Ground;

/// A change and what it is.
pub(crate) struct Change {
    line: &'static str,
    path: &'static str,
    kind: &'static str,
    class: &'static str,
    package: Option<&'static str>,
}

/// One for each instance, in turn.
pub(crate) const CHANGES: [Change; 6] = [
    Change {
        line: "echo '#' >> /usr/bin/less",
        path: "/usr/bin/less",
        kind: "changed",
        class: "program",
        package: Some("less"),
    },
    Change {
        line: "echo '* * * * * root /tmp/x' > /etc/cron.d/x",
        path: "/etc/cron.d/x",
        kind: "added",
        class: "persistence",
        package: None,
    },
    Change {
        line: "chmod u+s /usr/bin/find",
        path: "/usr/bin/find",
        kind: "changed",
        class: "program",
        package: Some("findutils"),
    },
    Change {
        line: "rm /etc/logrotate.conf",
        path: "/etc/logrotate.conf",
        kind: "removed",
        class: "log",
        package: Some("logrotate"),
    },
    Change {
        line: "echo 'Defaults !authenticate' >> /etc/sudoers",
        path: "/etc/sudoers",
        kind: "changed",
        class: "authentication",
        package: Some("sudo"),
    },
    Change {
        line: "printf '[Service]\\nExecStart=/tmp/x\\n' > /etc/systemd/system/x.service",
        path: "/etc/systemd/system/x.service",
        kind: "added",
        class: "persistence",
        package: None,
    },
];

/// A quick scan and a report; for two busy cores.
const LIMIT: Duration = Duration::from_secs(150);

impl Ground {
    /// Makes a change on a machine: exactly that is drift, on the machine and at the collector.
    pub(crate) fn changed(&self, vm: &str, change: &Change) -> Result<()> {
        self.with(vm, |machine| machine.exec(change.line))?;
        let id = self.id(vm)?;
        let mut open = Vec::new();
        until("the change at the collector", LIMIT, || {
            open = self.fleet.open_paths(&id)?;
            Ok((!open.is_empty()).then_some(()))
        })
        .with_context(|| format!("{vm}: {}", change.line))?;
        ensure!(
            open == [change.path],
            "{vm}: {open:?} after {}",
            change.line
        );
        let check = self.with(vm, |machine| {
            machine.try_exec("driftmark-agent check --json")
        })?;
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        let lines: Vec<Value> = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line.get("kind").is_some())
            .collect();
        ensure!(lines.len() == 1, "{vm}: {said}");
        let package = lines[0]["package"]
            .as_str()
            .and_then(|text| text.split(' ').next());
        let is = (
            &lines[0]["path"],
            &lines[0]["kind"],
            &lines[0]["class"],
            package,
        );
        let expected = (
            &change.path.into(),
            &change.kind.into(),
            &change.class.into(),
            change.package,
        );
        ensure!(is == expected, "{vm}: {is:?} is not {expected:?}");
        Ok(())
    }
}
