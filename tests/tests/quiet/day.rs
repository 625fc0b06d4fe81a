//! What happens on an instance in a day, in a minute: its own timers' work, and people who come and go.

use anyhow::{Context, Result, ensure};
use driftmark_tests::relay;

use crate::ground::Ground;

/// What timers start once a day or week; those of a distribution that has them.
const TIMERS: [&str; 9] = [
    "logrotate.service",
    "systemd-tmpfiles-clean.service",
    "apt-daily.service",
    "dpkg-db-backup.service",
    "man-db.service",
    "e2scrub_reap.service",
    "motd-news.service",
    "update-notifier-motd.service",
    "ua-timer.service",
];

/// The same by hand, and what else ordinary work is. systemd does not start its time-sync in a container; the drop-in
/// below /run has it start here, though not set the clock.
const WORK: &str = "
logrotate --force /etc/logrotate.conf
systemd-tmpfiles --clean
run-parts /etc/cron.daily
ldconfig
mkdir -p /run/systemd/system/systemd-timesyncd.service.d
printf '[Unit]\\nConditionVirtualization=\\nConditionCapability=\\n' > /run/systemd/system/systemd-timesyncd.service.d/here.conf
systemctl daemon-reload
systemctl restart systemd-timesyncd.service
systemctl restart systemd-journald.service rsyslog.service cron.service
logger 'an ordinary day'
su - admin -c 'id > /dev/null'
printf 'id\\nexit\\n' | timeout 20 script --quiet --command 'login -f admin' /dev/null > /dev/null || true
";

impl Ground {
    /// A day on a machine.
    pub(crate) fn day(&self, vm: &str) -> Result<()> {
        let proxy = format!("-o Acquire::http::Proxy=http://{}", relay::ADDRESS);
        let updated = self.with(vm, |machine| {
            machine.exec(&format!(
                "apt-get {proxy} update && find /var/lib/apt/lists -name '*Packages*' | wc -l"
            ))
        })?;
        let lists = updated
            .lines()
            .last()
            .and_then(|line| line.trim().parse::<u32>().ok());
        ensure!(lists > Some(0), "apt-get update fetched nothing: {updated}");
        self.with(vm, |machine| {
            machine.exec(WORK).context("an ordinary day's work")
        })?;
        for timer in TIMERS {
            self.with(vm, |machine| {
                machine.exec(&format!(
                    "if systemctl cat {timer} > /dev/null 2>&1; then systemctl start {timer}; fi"
                ))
            })?;
        }
        let said = self.log_in(vm, "echo it is $(id -un); sudo -n true || true; history -a")?;
        ensure!(said.contains("it is admin"), "{said}");
        // A shell of machinectl's own, which is a session of systemd-logind's as a console's is.
        self.with(vm, |machine| {
            machine.exec("systemctl start systemd-machined.service; script --quiet --return --command 'machinectl --quiet shell admin@.host /usr/bin/id' /dev/null > /dev/null < /dev/null")
        })?;
        Ok(())
    }
}
