//! The table: what a path is, and what changing it looks like. The first row that matches counts.

use std::sync::LazyLock;

use super::{Class, Classification, Severity};
use crate::TreePath;
use crate::glob::Pattern;

use Class::{Authentication, Boot, Library, Log, Network, Persistence, Program, Sentinel};
use Severity::{Critical, High, Low, Medium};

struct Row(
    Class,
    Severity,
    &'static [&'static str],
    &'static [&'static str],
);

/// Class, severity, ATT&CK techniques, paths. A pattern that matches a directory says nothing about what is in it.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    // The sentinel itself.
    Row(Sentinel, Critical, &["T1562.001"], &["/usr/lib/driftmark", "/usr/lib/driftmark/**", "/etc/driftmark", "/etc/driftmark/**", "/var/lib/driftmark", "/usr/bin/driftmark-*", "/**/system/driftmark-*", "/**/system/driftmark-*/**"]),

    // Loader: code that enters every program.
    Row(Persistence, Critical, &["T1574.006"], &["/etc/ld.so.preload"]),
    Row(Library, High, &["T1574.006"], &["/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.conf.d/**", "/etc/ld.so.cache"]),

    // Authentication.
    Row(Authentication, Critical, &["T1136.001", "T1098"], &["/etc/passwd", "/etc/passwd-", "/etc/shadow", "/etc/shadow-", "/etc/group", "/etc/group-", "/etc/gshadow", "/etc/gshadow-"]),
    Row(Authentication, High, &["T1098"], &["/etc/subuid*", "/etc/subgid*", "/etc/security/**", "/etc/login.defs", "/etc/shells"]),
    Row(Authentication, Critical, &["T1556.003"], &["/etc/pam.conf", "/etc/pam.d", "/etc/pam.d/**", "/usr/lib/pam.d/**", "/**/security/pam_*.so", "/**/libpam*.so*"]),
    Row(Authentication, Critical, &["T1548.003"], &["/etc/sudoers", "/etc/sudoers.d", "/etc/sudoers.d/**", "/etc/sudo.conf", "/etc/doas.conf", "/etc/polkit-1/**", "/usr/share/polkit-1/**"]),
    Row(Authentication, Critical, &["T1098.004"], &["/**/.ssh", "/**/.ssh/authorized_keys*", "/etc/ssh/authorized_keys*", "/etc/ssh/authorized_keys*/**", "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d", "/etc/ssh/sshd_config.d/**"]),
    Row(Authentication, High, &["T1563.001"], &["/etc/ssh", "/etc/ssh/**", "/**/.ssh/**"]),
    Row(Authentication, High, &["T1556"], &["/etc/nsswitch.conf", "/etc/krb5*", "/etc/sssd/**", "/**/libnss_*.so*"]),
    Row(Authentication, High, &["T1553.004"], &["/etc/ssl/certs", "/etc/ssl/certs/**", "/etc/pki/ca-trust/**", "/usr/share/ca-certificates/**", "/usr/local/share/ca-certificates/**"]),

    // Kernel, modules, initramfs, boot loader.
    Row(Boot, Critical, &["T1547.006"], &["/lib/modules", "/lib/modules/**", "/usr/lib/modules", "/usr/lib/modules/**", "/etc/modules", "/etc/modules-load.d", "/etc/modules-load.d/**", "/usr/lib/modules-load.d/**", "/etc/modprobe.d", "/etc/modprobe.d/**", "/usr/lib/modprobe.d/**", "/**.ko", "/**.ko.xz", "/**.ko.zst", "/**.ko.gz"]),
    Row(Boot, Critical, &["T1542"], &["/boot", "/boot/**", "/efi", "/efi/**", "/etc/default/grub*", "/etc/default/grub.d/**", "/etc/grub.d/**", "/etc/initramfs-tools/**", "/usr/share/initramfs-tools/**", "/etc/dracut.conf*", "/etc/dracut.conf.d/**", "/etc/kernel/**", "/usr/lib/kernel/**", "/etc/fstab", "/etc/crypttab"]),
    Row(Boot, High, &["T1562"], &["/etc/sysctl.conf", "/etc/sysctl.d", "/etc/sysctl.d/**", "/usr/lib/sysctl.d/**", "/etc/selinux/**", "/etc/apparmor*/**"]),

    // What starts by itself.
    Row(Persistence, Critical, &["T1053.003"], &["/etc/crontab", "/etc/anacrontab", "/etc/cron.*", "/etc/cron.*/**", "/var/spool/cron", "/var/spool/cron/**"]),
    Row(Persistence, Critical, &["T1053.002"], &["/var/spool/at*", "/var/spool/at*/**", "/etc/at.allow", "/etc/at.deny"]),
    Row(Persistence, Critical, &["T1053.006"], &["/etc/systemd/**.timer", "/etc/systemd/**.timer.d/**", "/usr/lib/systemd/**.timer", "/usr/lib/systemd/**.timer.d/**", "/lib/systemd/**.timer", "/usr/local/lib/systemd/**.timer", "/**/.config/systemd/**.timer"]),
    Row(Persistence, Critical, &["T1543.002"], &["/etc/systemd/system", "/etc/systemd/system/**", "/etc/systemd/user", "/etc/systemd/user/**", "/etc/systemd/system-*/**", "/usr/lib/systemd/system", "/usr/lib/systemd/system/**", "/usr/lib/systemd/user/**", "/usr/lib/systemd/system-*/**", "/lib/systemd/system/**", "/usr/local/lib/systemd/**", "/**/.config/systemd/**", "/usr/share/dbus-1/system-services/**"]),
    Row(Persistence, Critical, &["T1037.004"], &["/etc/rc.local", "/etc/rc.d/**", "/etc/rc?.d/**", "/etc/init.d", "/etc/init.d/**", "/etc/inittab"]),
    Row(Persistence, High, &["T1546.004"], &["/etc/profile", "/etc/profile.d", "/etc/profile.d/**", "/etc/bash.bashrc", "/etc/bashrc", "/etc/zsh*", "/etc/zsh/**", "/etc/environment", "/etc/skel/**", "/**/.bashrc", "/**/.bash_profile", "/**/.bash_login", "/**/.bash_logout", "/**/.profile", "/**/.zshrc", "/**/.zprofile", "/**/.zshenv"]),
    Row(Persistence, High, &["T1546.017"], &["/etc/udev/**", "/usr/lib/udev/**", "/lib/udev/**"]),
    Row(Persistence, High, &["T1546.016"], &["/etc/apt/**", "/etc/yum*/**", "/etc/dnf/**", "/etc/dpkg/**", "/var/lib/dpkg/info/*inst", "/var/lib/dpkg/info/*rm"]),
    Row(Persistence, High, &["T1547.013"], &["/etc/xdg/autostart/**", "/**/.config/autostart/**"]),
    Row(Persistence, High, &["T1037"], &["/etc/update-motd.d/**", "/etc/NetworkManager/dispatcher.d/**", "/etc/networkd-dispatcher/**", "/etc/network/if-*.d/**", "/etc/dhcp/*hooks.d/**", "/etc/logrotate.d/**", "/etc/cloud/**"]),

    // Names, addresses, routes, filters.
    Row(Network, High, &["T1562.004"], &["/etc/nftables*", "/etc/nftables*/**", "/etc/iptables*/**", "/etc/ufw/**", "/etc/firewalld/**", "/etc/hosts.allow", "/etc/hosts.deny"]),
    Row(Network, High, &["T1565.001"], &["/etc/hosts", "/etc/resolv.conf", "/etc/gai.conf"]),
    Row(Network, Medium, &["T1016"], &["/etc/hostname", "/etc/networks", "/etc/network", "/etc/network/**", "/etc/netplan/**", "/etc/NetworkManager/**", "/etc/systemd/network/**", "/usr/lib/systemd/network/**", "/etc/systemd/resolved.conf*", "/etc/systemd/resolved.conf.d/**", "/etc/services", "/etc/protocols", "/etc/dhcp/**", "/etc/wireguard/**"]),

    // Logs and their configuration.
    Row(Log, High, &["T1562.012"], &["/etc/audit*", "/etc/audit*/**"]),
    Row(Log, High, &["T1562.006"], &["/etc/rsyslog*", "/etc/rsyslog.d/**", "/etc/syslog*", "/etc/systemd/journald.conf*", "/etc/systemd/journald.conf.d/**", "/etc/logrotate.conf"]),
    Row(Log, Medium, &["T1070.002"], &["/var/log", "/var/log/**"]),

    // Programs and libraries.
    Row(Program, Critical, &["T1554"], &["/bin", "/bin/**", "/sbin", "/sbin/**", "/usr/bin", "/usr/bin/**", "/usr/sbin", "/usr/sbin/**", "/usr/local/bin/**", "/usr/local/sbin/**", "/usr/libexec/**", "/usr/lib/systemd/systemd*", "/lib/systemd/systemd*", "/opt/**/bin/**"]),
    Row(Library, Critical, &["T1574"], &["/**.so", "/**.so.*", "/lib", "/lib32", "/lib64", "/libx32"]),
    Row(Library, High, &["T1574"], &["/usr/lib/python*/**", "/usr/share/perl*/**", "/usr/lib/**/perl*/**", "/usr/lib/ruby/**", "/usr/lib/node_modules/**", "/usr/lib/jvm/**"]),

    // Places where anyone may write, and what only documents.
    Row(Class::Other, Medium, &["T1036"], &["/dev/**", "/tmp/**", "/var/tmp/**"]),
    Row(Class::Other, Medium, &[], &["/etc/**"]),
    Row(Class::Other, Low, &[], &["/usr/share/doc/**", "/usr/share/man/**", "/usr/share/locale/**"]),
];

/// The table with its patterns read, once.
static ROWS: LazyLock<Vec<(&'static Row, Vec<Pattern>)>> = LazyLock::new(|| {
    let read = |text: &&str| Pattern::new(text.as_bytes()).expect("the table holds patterns");
    TABLE
        .iter()
        .map(|row| (row, row.3.iter().map(read).collect()))
        .collect()
});

/// What the table says of a path.
pub(super) fn lookup(path: &TreePath) -> Option<Classification> {
    let (Row(class, severity, techniques, _), _) = ROWS
        .iter()
        .find(|(_, patterns)| patterns.iter().any(|pattern| pattern.matches(path)))?;
    Some(Classification {
        class: class.clone(),
        severity: severity.clone(),
        techniques: techniques.to_vec(),
    })
}
