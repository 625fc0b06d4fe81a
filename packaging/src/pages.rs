//! What the manual pages say besides what the command lines and configuration types say themselves.

pub(crate) mod text;

/// A section of a page.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its heading.
    pub(crate) heading: &'static str,
    /// Paragraphs before the tags.
    pub(crate) paragraphs: &'static [&'static str],
    /// Words and what is said of each.
    pub(crate) tags: &'static [(&'static str, &'static str)],
}

/// The page of a program.
#[derive(Debug)]
pub(crate) struct Program {
    /// One line for `whatis`.
    pub(crate) purpose: &'static str,
    /// After the commands.
    pub(crate) sections: &'static [Section],
}

/// The page of a configuration file, and that file.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// What the page is called.
    pub(crate) name: &'static str,
    /// One line for `whatis`.
    pub(crate) purpose: &'static str,
    /// Which files, and how they become one.
    pub(crate) description: &'static [&'static str],
    /// Above the keys that are in no section.
    pub(crate) keys_heading: &'static str,
    /// Where those keys stand.
    pub(crate) keys_introduction: &'static [&'static str],
    /// After the keys.
    pub(crate) sections: &'static [Section],
    /// At the top of the file with everything commented out.
    pub(crate) file_introduction: &'static [&'static str],
    /// Before its first key.
    pub(crate) file_start: &'static str,
}

const DROP_INS: &str = "Every file whose name ends in `.toml` is read, those of all directories together in the order of their \
    names, and laid over each other: of a key that several files set, the last counts. A file in a later directory of \
    the list below hides one of the same name in an earlier directory. An unknown key, a key that is there twice, and a \
    file that anyone may write are refused, and a program whose configuration is refused does not run: it exits with 78.";

const SIZES: &str = "Lengths of time are whole numbers with `s`, `m`, `h` or `d`.";

/// `driftmark-agent(8)`.
pub(crate) const AGENT: Program = Program {
    purpose: "verify a machine against the image that it was baked from",
    sections: &[
        Section {
            heading: "FILES",
            paragraphs: &[],
            tags: &[
                (
                    "/usr/lib/driftmark/image.manifest, image.manifest.sig",
                    "The image's manifest and its signature, as `bake` and `sign` make them.",
                ),
                (
                    "/usr/lib/driftmark/trust.d/*.pub",
                    "The public keys that the image trusts. There is no override: what is trusted is part of the image.",
                ),
                (
                    "agent.d below /usr/lib/driftmark, /run/driftmark, /etc/driftmark",
                    "The configuration, see driftmark-agent.toml(5).",
                ),
                (
                    "/var/lib/driftmark",
                    "The instance's identity, and reports that wait for the collector. Never part of an image.",
                ),
                ("/run/driftmark/agent.sock", "Where `status` asks."),
                (
                    "/run/driftmark/last-seen",
                    "Until when all that happened was seen, for the next start.",
                ),
            ],
        },
        Section {
            heading: "EXIT STATUS",
            paragraphs: &[
                "Of `check`: 1 if any drift is proven, else 2 if anything could not be verified, else 0. Of `diff`: 1 if the images differ, else 0. Of every other command:",
            ],
            tags: &[
                ("0", "Done."),
                ("64", "The command line is wrong."),
                ("65, 66", "What was given is wrong, or is not there."),
                (
                    "73, 74",
                    "What was to be written could not be made, or reading or writing broke off.",
                ),
                ("77", "Not permitted."),
                ("78", "The configuration is refused."),
            ],
        },
        Section {
            heading: "ENVIRONMENT",
            paragraphs: &[],
            tags: &[
                (
                    "CREDENTIALS_DIRECTORY",
                    "As systemd sets it: where `driftmark.token` and `driftmark.cloud-id` are looked for.",
                ),
                (
                    "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
                    "As for curl(1): the proxy through which `run` and `enroll` reach the collector, and what is reached without it.",
                ),
                (
                    "STATE_DIRECTORY",
                    "As systemd sets it: where the state is kept, unless the configuration says otherwise.",
                ),
                ("NO_COLOR", "No colours."),
            ],
        },
        Section {
            heading: "SEE ALSO",
            paragraphs: &[
                "driftmark-agent.toml(5), driftmark-collector(8), systemd.unit(5), systemd.exec(5)",
            ],
            tags: &[],
        },
    ],
};

/// `driftmark-agent.toml(5)`.
pub(crate) const AGENT_CONFIGURATION: Configuration = Configuration {
    name: "driftmark-agent.toml",
    purpose: "configuration of driftmark-agent",
    description: &[
        "The agent needs no configuration. What an instance must know comes with its join token.",
        DROP_INS,
        "Above the files counts what the kernel command line says: `driftmark.collector` and `driftmark.fleet`, which everyone \
         on the machine can read. Above that counts the credential `driftmark.config`, a file like the others that systemd hands \
         to the agent. Above all counts `driftmark.enforce=off` on the kernel command line.",
        "`driftmark-agent check-config` says what is in force and which file says so, or what is wrong.",
        SIZES,
    ],
    keys_heading: "KEYS OUTSIDE OF SECTIONS",
    keys_introduction: &["These stand above the first section of a file."],
    sections: &[
        Section {
            heading: "ENFORCEMENT",
            paragraphs: &[
                "With `enforce = \"image-programs\"` the kernel asks the agent before it runs a file, and what the image does not hold \
                 gets `EPERM`: programs, and scripts that are run as themselves (what an interpreter of the image reads is not asked \
                 about). A program of the image that has changed is drift, and runs. What has another root than the machine runs, and \
                 so does what lies on a file system that may wait for somebody else (FUSE, NFS) or of which only a part is mounted, or \
                 in memory alone. Volatile trees hold no programs of the image: name directories with programs of your own, or with \
                 scripts that package managers or cloud-init run, in `enforce-allow`. Try `permissive` first.",
                "Nothing is refused from the moment on that the file `enforce-off` is beside the status socket \
                 (`/run/driftmark/enforce-off`), until it is removed; and nothing at all with `driftmark.enforce=off` on the kernel \
                 command line. Without the agent everything runs. An answer that takes more than half a second has everything run for \
                 a minute. A stopped agent keeps waiting what was not run since it began, until systemd ends it after 20 seconds \
                 (where the unit has a longer `WatchdogSec=`). The coverage and `driftmark-agent status` say what is not refused.",
            ],
            tags: &[],
        },
        Section {
            heading: "FILES",
            paragraphs: &[],
            tags: &[
                (
                    "/usr/lib/driftmark/agent.d/*.toml",
                    "What the image's maker wants. `00-default.toml` there has every key, commented out.",
                ),
                (
                    "/run/driftmark/agent.d/*.toml",
                    "What a boot step wants, until the next boot.",
                ),
                (
                    "/etc/driftmark/agent.d/*.toml",
                    "What the administrator wants.",
                ),
            ],
        },
        Section {
            heading: "SEE ALSO",
            paragraphs: &["driftmark-agent(8)"],
            tags: &[],
        },
    ],
    file_introduction: &[
        "Every key of the agent's configuration, with its default, or an example where there is none.",
        "See driftmark-agent.toml(5). To change one, put it into a file of another name in /etc/driftmark/agent.d, below the heading of its section.",
    ],
    file_start: "",
};

/// `driftmark-collector(8)`.
pub(crate) const COLLECTOR: Program = Program {
    purpose: "collect drift, and have drifted instances replaced",
    sections: &[
        Section {
            heading: "FILES",
            paragraphs: &[],
            tags: &[
                (
                    "collector.d below /usr/lib/driftmark, /run/driftmark, /etc/driftmark",
                    "The configuration, see driftmark-collector.toml(5).",
                ),
                (
                    "/var/lib/driftmark-collector",
                    "The database, the certificate authority with its keys, and the first operator's token. Who can read it is the collector.",
                ),
                (
                    "/var/lib/driftmark-collector/fleets.toml",
                    "The fleets and their policy, see driftmark-fleets.toml(5).",
                ),
            ],
        },
        Section {
            heading: "EXIT STATUS",
            paragraphs: &[],
            tags: &[
                ("0", "Done."),
                ("1", "Refused by the collector, or broken."),
                ("64", "The command line is wrong."),
                ("66", "A file that was named cannot be read."),
                ("69", "No collector answers."),
                ("77", "Not allowed."),
                ("78", "The configuration is refused."),
            ],
        },
        Section {
            heading: "SEE ALSO",
            paragraphs: &[
                "driftmark-collector.toml(5), driftmark-fleets.toml(5), driftmark-agent(8)",
            ],
            tags: &[],
        },
    ],
};

/// `driftmark-collector.toml(5)`.
pub(crate) const COLLECTOR_CONFIGURATION: Configuration = Configuration {
    name: "driftmark-collector.toml",
    purpose: "configuration of driftmark-collector",
    description: &[
        "The collector needs no configuration to be tried: without any it listens on this machine alone.",
        DROP_INS,
        "`driftmark-collector check-config` says what is wrong.",
        SIZES,
    ],
    keys_heading: "KEYS",
    keys_introduction: &["There are no sections."],
    sections: &[
        Section {
            heading: "FILES",
            paragraphs: &[],
            tags: &[
                (
                    "/usr/lib/driftmark/collector.d/*.toml",
                    "What the package's maker wants. `00-default.toml` there has every key, commented out.",
                ),
                (
                    "/run/driftmark/collector.d/*.toml",
                    "What a boot step wants, until the next boot.",
                ),
                (
                    "/etc/driftmark/collector.d/*.toml",
                    "What the administrator wants.",
                ),
            ],
        },
        Section {
            heading: "SEE ALSO",
            paragraphs: &["driftmark-collector(8), driftmark-fleets.toml(5)"],
            tags: &[],
        },
    ],
    file_introduction: &[
        "Every key of the collector's configuration, with its default, or an example where there is none.",
        "See driftmark-collector.toml(5). To change one, put it into a file of another name in /etc/driftmark/collector.d.",
    ],
    file_start: "",
};

/// `driftmark-fleets.toml(5)`.
pub(crate) const FLEETS: Configuration = Configuration {
    name: "driftmark-fleets.toml",
    purpose: "the fleets of driftmark-collector and what may be replaced in them",
    description: &[
        "One file, best kept under version control, with a `[[fleet]]` for each fleet: its `name`, as join tokens have it, and what is said of it. What `[default]` says counts for every fleet of the file that does not say otherwise. A fleet that is not in the file is observed, and nothing in it is replaced.",
        "The collector reads the file again when it changes. A file that it cannot use changes nothing: what was in force stays so, and the collector says what is wrong.",
        SIZES,
    ],
    keys_heading: "KEYS OF A FLEET AND OF [default]",
    keys_introduction: &[],
    sections: &[
        Section {
            heading: "FILES",
            paragraphs: &[],
            tags: &[(
                "/var/lib/driftmark-collector/fleets.toml",
                "Where it is, unless `fleets` in driftmark-collector.toml(5) says otherwise.",
            )],
        },
        Section {
            heading: "SEE ALSO",
            paragraphs: &["driftmark-collector(8), driftmark-collector.toml(5)"],
            tags: &[],
        },
    ],
    file_introduction: &[
        "A fleet with every key that a fleet can have, each with its default, or an example where there is none.",
        "See driftmark-fleets.toml(5). Keys below [default] count for every fleet that does not say otherwise.",
    ],
    file_start: "[[fleet]]\nname = \"web\"\n\n",
};
