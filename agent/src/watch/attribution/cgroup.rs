//! A control group in, the unit and the container that it says out.

/// The process's own group from `/proc/PID/cgroup`: the unified one, or systemd's own where that says nothing.
pub(super) fn own(text: &[u8]) -> Option<&[u8]> {
    let find = |controllers: &[u8]| {
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.find_map(|line| {
            let mut parts = line.splitn(3, |byte| *byte == b':').skip(1);
            let is_it = parts.next()? == controllers;
            parts.next().filter(|_| is_it)
        })
    };
    let unified = find(b"").filter(|path| *path != b"/");
    unified
        .or_else(|| find(b"name=systemd"))
        .or_else(|| find(b""))
}

/// The unit of the system's service manager; what runs beneath a user's own manager is that manager's.
pub(super) fn unit_of(cgroup: &[u8]) -> Option<&[u8]> {
    const KINDS: [&[u8]; 6] = [
        b".service",
        b".scope",
        b".socket",
        b".mount",
        b".swap",
        b".device",
    ];
    let mut names = cgroup
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    let unit = names.find(|name| !name.ends_with(b".slice"))?;
    let is_unit = KINDS
        .iter()
        .any(|kind| unit.ends_with(kind) && unit.len() > kind.len());
    // systemd's way to call a group what the kernel has other plans for.
    is_unit.then(|| unit.strip_prefix(b"_").unwrap_or(unit))
}

/// The runtime and the container's name, by how the runtimes name their groups.
pub(super) fn container_of(cgroup: &[u8]) -> Option<(&'static str, &[u8])> {
    /// What is before and behind the name of a container in the name of its group.
    const NAMED: [(&str, &[u8], &[u8]); 7] = [
        ("docker", b"docker-", b".scope"),
        ("podman", b"libpod-", b".scope"),
        ("cri-o", b"crio-", b".scope"),
        ("containerd", b"cri-containerd-", b".scope"),
        ("machine", b"machine-", b".scope"),
        ("systemd-nspawn", b"systemd-nspawn@", b".service"),
        ("lxc", b"lxc.payload.", b""),
    ];
    /// Groups whose members are containers.
    const ABOVE: [(&str, &[u8]); 3] = [
        ("docker", b"docker"),
        ("lxc", b"lxc"),
        ("kubernetes", b"kubepods"),
    ];
    let names = || {
        cgroup
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    };
    let named = names().find_map(|name| {
        NAMED.iter().find_map(|(runtime, before, behind)| {
            let id = name.strip_prefix(*before)?.strip_suffix(*behind)?;
            // Their own helpers run beside the container, on the host.
            (!id.is_empty() && !id.starts_with(b"conmon-")).then_some((*runtime, id))
        })
    });
    named.or_else(|| {
        let first = names().next()?;
        let (runtime, _) = ABOVE.iter().find(|(_, above)| *above == first)?;
        names().skip(1).last().map(|id| (*runtime, id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_the_unified_one_or_what_systemd_says() {
        let table: [(&str, Option<&str>); 7] = [
            (
                "0::/system.slice/ssh.service\n",
                Some("/system.slice/ssh.service"),
            ),
            ("1:name=systemd:/init.scope\n0::/\n", Some("/init.scope")),
            (
                "12:cpu,cpuacct:/x\n1:name=systemd:/system.slice/a.service\n0::/\n",
                Some("/system.slice/a.service"),
            ),
            ("0::/\n", Some("/")),
            ("0::/a:b\n", Some("/a:b")),
            ("", None),
            ("garbage\n", None),
        ];
        for (text, expected) in table {
            assert_eq!(own(text.as_bytes()), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn the_unit_is_the_first_that_is_no_slice() {
        let table = [
            ("/system.slice/ssh.service", Some("ssh.service")),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
                Some("user@1000.service"),
            ),
            ("/init.scope", Some("init.scope")),
            ("/system.slice/_cgroup.service", Some("cgroup.service")),
            ("/docker/0123", None),
            ("/.service", None),
            ("/", None),
        ];
        for (cgroup, expected) in table {
            let unit = unit_of(cgroup.as_bytes());
            assert_eq!(unit, expected.map(str::as_bytes), "{cgroup}");
        }
    }

    #[test]
    fn containers_are_known_by_their_groups_and_their_helpers_are_none() {
        let table = [
            ("/system.slice/docker-0123.scope", Some(("docker", "0123"))),
            ("/docker/0123", Some(("docker", "0123"))),
            (
                "/machine.slice/libpod-0123.scope/container",
                Some(("podman", "0123")),
            ),
            ("/machine.slice/libpod-conmon-0123.scope", None),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-0123.scope",
                Some(("containerd", "0123")),
            ),
            (
                "/kubepods/besteffort/pod1/0123",
                Some(("kubernetes", "0123")),
            ),
            (
                "/machine.slice/systemd-nspawn@web.service/payload",
                Some(("systemd-nspawn", "web")),
            ),
            ("/lxc.payload.web/init.scope", Some(("lxc", "web"))),
            ("/system.slice/docker.service", None),
            ("/docker", None),
            ("/", None),
        ];
        for (cgroup, expected) in table {
            let expected = expected.map(|(runtime, id)| (runtime, id.as_bytes()));
            assert_eq!(container_of(cgroup.as_bytes()), expected, "{cgroup}");
        }
    }
}
