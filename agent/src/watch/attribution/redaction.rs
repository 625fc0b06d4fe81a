//! The arguments of a process in, a line without what looks like a secret out.
//!
//! Judged argument by argument: from the first place at which a secret's value may begin, all of the argument is hidden,
//! as nobody but its program knows where the value ends. That leaves out too much rather than too little, and cannot know
//! everything: a secret that is given without its name (`mysql -psecret`) is told. Who must not have any of it told says
//! so (`attribution.command-line`).

use std::ops::Range;

use drift::attribution::Attribution;
use drift::written::{Problem, Readable, Value, word};

use super::{MORE, cut, shown};

/// How much of a command line is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommandLine {
    /// All of it.
    Full,
    /// All but what looks like a secret ([`redacted`]).
    #[default]
    Redacted,
    /// Nothing.
    None,
}

impl Readable for CommandLine {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        word(
            value,
            &[
                ("full", CommandLine::Full),
                ("redacted", CommandLine::Redacted),
                ("none", CommandLine::None),
            ],
        )
    }
}

impl CommandLine {
    /// What is told of arguments, parted by NUL: at most [`Attribution::MAX_COMMAND_LINE_BYTES`].
    pub fn of(self, arguments: &[u8]) -> Option<String> {
        match self {
            CommandLine::Full => {
                let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
                let parted: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
                let line = parted.join(&b' ');
                Some(shown(&line, Attribution::MAX_COMMAND_LINE_BYTES))
            }
            CommandLine::Redacted => Some(redacted(arguments)),
            CommandLine::None => None,
        }
    }
}

/// Arguments as `/proc/PID/cmdline` has them, parted by NUL, as a line of at most
/// [`Attribution::MAX_COMMAND_LINE_BYTES`], with `***` for what is hidden: what follows an option, a variable, a header or
/// a key whose name speaks of a secret, and who is named in an address. More bytes than that are not looked at, and the
/// line ends in `…` then.
pub fn redacted(arguments: &[u8]) -> String {
    let most = Attribution::MAX_COMMAND_LINE_BYTES;
    let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    let is_cut = arguments.len() > most;
    let mut arguments = arguments[..arguments.len().min(most)]
        .split(|byte| *byte == 0)
        .peekable();
    let mut line = String::new();
    let mut next = Next::Plain;
    while let Some(argument) = arguments.next() {
        let is_whole = !is_cut || arguments.peek().is_some();
        let argument = as_text(argument);
        let hides = match next {
            Next::Plain => false,
            Next::User => argument.contains(':') || !is_whole,
            Next::Secret | Next::Rest => true,
        };
        if hides {
            line.push_str(HIDDEN);
        } else {
            line.push_str(&told(&argument, is_whole));
        }
        // One that is hidden may be an option all the same, where the one before it has no value.
        next = match next {
            Next::Rest => Next::Rest,
            _ => said_of_the_next(&argument),
        };
        if arguments.peek().is_some() {
            line.push(' ');
        }
    }
    if is_cut {
        line.push_str(MORE);
    }
    cut(line, most)
}

const HIDDEN: &str = "***";
/// In lower case; anywhere in a name.
const SECRET: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "secret",
    "key",
    "credential",
    "authorization",
    "cookie",
    "bearer",
    "auth",
];
/// A value of theirs with `:` in it is `NAME:PASSWORD`, or `TOKEN:`.
const USERS: [&str; 4] = ["-u", "--user", "-U", "--proxy-user"];
/// A name begins after the last of these.
const BEFORE_A_NAME: [char; 11] = ['?', '&', ',', ';', '=', ':', '{', '/', '"', '\'', ' '];

/// What an argument says of the next one.
#[derive(Clone, Copy)]
enum Next {
    Plain,
    /// It is a secret.
    Secret,
    /// It is a user, and what is after `:` a secret.
    User,
    /// A header that somebody forgot to quote: how many arguments it has cannot be told.
    Rest,
}

/// Space for all white space: a script on a command line is a command line.
fn as_text(argument: &[u8]) -> String {
    let spaced = argument.iter().map(|byte| match byte {
        byte if byte.is_ascii_whitespace() => b' ',
        byte => *byte,
    });
    drift::escape(&spaced.collect::<Vec<u8>>())
}

/// An argument by itself.
fn told(argument: &str, is_whole: bool) -> String {
    let secret = first_secret(argument);
    let end = secret.unwrap_or(argument.len());
    let (mut told, rest) = match who(argument, is_whole) {
        Some(who) if who.start < end => {
            let rest = argument.get(who.end..end).unwrap_or_default();
            (argument[..who.start].to_owned() + HIDDEN, rest)
        }
        _ => (String::new(), &argument[..end]),
    };
    told.push_str(rest);
    if secret.is_some() && !told.ends_with(HIDDEN) {
        told.push_str(HIDDEN);
    }
    told
}

/// `NAME:PASSWORD` of `SCHEME://NAME:PASSWORD@HOST`: up to the last `@`, as a password may have any byte in it. Where the
/// argument goes on unseen, there may be one yet.
fn who(argument: &str, is_whole: bool) -> Option<Range<usize>> {
    const SCHEME_ENDS: &str = "://";
    let start = argument.find(SCHEME_ENDS)? + SCHEME_ENDS.len();
    let at = argument[start..].rfind('@').map(|at| start + at);
    let end = at.or((!is_whole).then_some(argument.len()))?;
    Some(start..end)
}

/// Where the value of a secret may begin first, if there is any value.
fn first_secret(argument: &str) -> Option<usize> {
    argument
        .match_indices(['=', ':', ' '])
        .map(|(at, by)| (name_at_the_end(&argument[..at]), by, at + by.len()))
        .find(|(name, by, value)| {
            let value = &argument[*value..];
            let is_secret = speaks_of_a_secret(name) && (*by != " " || name.starts_with('-'));
            let is_user = USERS.contains(name) && *by != ":" && value.contains(':');
            !value.is_empty() && (is_secret || is_user)
        })
        .map(|(_, _, value)| value)
}

fn said_of_the_next(argument: &str) -> Next {
    let name = name_at_the_end(argument);
    match speaks_of_a_secret(name) {
        true if argument.trim_end().ends_with(':') => Next::Rest,
        true if name.starts_with('-') => Next::Secret,
        _ if USERS.contains(&name) => Next::User,
        _ => Next::Plain,
    }
}

/// Without what closes it: a quote, a bracket, the space before `=`.
fn name_at_the_end(text: &str) -> &str {
    let text = text.trim_end_matches(|end: char| !end.is_alphanumeric());
    text.rsplit(BEFORE_A_NAME).next().unwrap_or_default()
}

fn speaks_of_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_much_is_told_as_was_asked_for() {
        let told = |how: CommandLine| how.of(b"curl\0--token\0s3cret\0");
        let full = "curl --token s3cret";
        assert_eq!(told(CommandLine::Full).as_deref(), Some(full));
        let redacted = "curl --token ***";
        assert_eq!(told(CommandLine::Redacted).as_deref(), Some(redacted));
        assert_eq!(told(CommandLine::None), None);
    }

    fn line(arguments: &[&str]) -> String {
        redacted(arguments.join("\0").as_bytes())
    }

    #[test]
    fn secrets_are_left_out_and_what_comes_before_them_is_not() {
        let table: &[(&[&str], &str)] = &[
            (&["ls", "-l", "/etc"], "ls -l /etc"),
            (&["x", "--password", "s3cret", "-v"], "x --password *** -v"),
            (&["x", "--password=s3cret"], "x --password=***"),
            // Whether it has a value is its program's to know.
            (&["x", "--no-password", "-v", "y"], "x --no-password *** y"),
            (&["x", "--token", "--key", "S"], "x --token *** ***"),
            (&["x", "--password", "two words"], "x --password ***"),
            (&["x", "--password=pa?ss"], "x --password=***"),
            (&["env", "PASSWORD=two words"], "env PASSWORD=***"),
            (&["env", "PASSWORD=x&S", "y"], "env PASSWORD=*** y"),
            (&["env", "PASSWORD=", "ls"], "env PASSWORD= ls"),
            (&["x", "-Dapi.key=s3cret"], "x -Dapi.key=***"),
            (
                &["env", "AWS_SECRET_ACCESS_KEY=s3cret", "aws"],
                "env AWS_SECRET_ACCESS_KEY=*** aws",
            ),
            (
                &["vault", "write", "secret/db_password=S"],
                "vault write secret/db_password=***",
            ),
            (&["x", "--api-TOKEN", "s3cret"], "x --api-TOKEN ***"),
            (&["curl", "-u", "me:s3cret", "x"], "curl -u *** x"),
            (&["curl", "-u", "sk_s3cret:", "x"], "curl -u *** x"),
            (&["curl", "--user=me:s3cret"], "curl --user=***"),
            (&["sudo", "-u", "postgres", "x"], "sudo -u postgres x"),
            (&["sh", "-c", "curl -u me:S x"], "sh -c curl -u ***"),
            (
                &["curl", "https://me:s3cret@host/a:b", "y"],
                "curl https://***@host/a:b y",
            ),
            (
                &["x", "--url=postgres://me:s3cret@host/db"],
                "x --url=postgres://***@host/db",
            ),
            (&["x", "amqp://me:c2Vj==@h"], "x amqp://***@h"),
            (&["x", "postgres://me:pa&ss@h/"], "x postgres://***@h/"),
            (&["x", "postgres://me:p@/s?s@h/"], "x postgres://***@h/"),
            (
                &["git", "clone", "https://ghp_S@github.com/a/b"],
                "git clone https://***@github.com/a/b",
            ),
            (
                &["x", "https://me:s3cret@host/?a=b&token=s3cret&c=d"],
                "x https://***@host/?a=b&token=***",
            ),
            (
                &["curl", "-H", "Authorization: Bearer s3cret", "x"],
                "curl -H Authorization:*** x",
            ),
            (
                &["curl", "-H", "Authorization: token ghp_S"],
                "curl -H Authorization:***",
            ),
            (
                &["curl", "-H", "Authorization: ApiKey S"],
                "curl -H Authorization:***",
            ),
            (
                &["curl", "-H", "Authorization: SSWS S"],
                "curl -H Authorization:***",
            ),
            (&["curl", "-H", "Cookie: a=b; c=S"], "curl -H Cookie:***"),
            (&["curl", "-H", "X-Api-Key:s3cret"], "curl -H X-Api-Key:***"),
            (
                &["echo", "Authorization:", "Bearer", "S"],
                "echo Authorization: *** ***",
            ),
            (
                &["wget", "--header=Authorization: Bearer S"],
                "wget --header=Authorization:***",
            ),
            (
                &["wget", "--header=X-Api-Key:S"],
                "wget --header=X-Api-Key:***",
            ),
            (
                &["curl", "-d", r#"{"user":"me","password":"S"}"#],
                r#"curl -d {"user":"me","password":***"#,
            ),
            (
                &["python3", "-c", "environ['PASSWORD'] = 'S'"],
                "python3 -c environ['PASSWORD'] =***",
            ),
            (
                &["sh", "-c", "mysql --password=s3cret | x"],
                "sh -c mysql --password=***",
            ),
            (
                &["sh", "-c", "mysql\n--password\ns3cret"],
                "sh -c mysql --password ***",
            ),
            (
                &["sh", "-c", "A_TOKEN=s3cret x --token s3cret"],
                "sh -c A_TOKEN=***",
            ),
            (&["x", "--key"], "x --key"),
            (&["x", "a\nb\u{1b}[31m"], "x a b\\x1b[31m"),
        ];
        for (arguments, expected) in table {
            assert_eq!(line(arguments), *expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_line_has_an_end_and_says_where_it_was_cut() {
        let most = Attribution::MAX_COMMAND_LINE_BYTES;
        let is_cut = |arguments: &str| {
            let line = redacted(arguments.as_bytes());
            assert!(line.len() <= most);
            line.ends_with('…')
        };
        assert!(is_cut(&"x".repeat(100_000)) && is_cut(&"y\0".repeat(100_000)));
        assert!(is_cut(&"x".repeat(most + 1)));
        assert!(!is_cut(&"x".repeat(most)) && !is_cut(&("x".repeat(most) + "\0")));
        // Short as it is, it is not all.
        assert!(is_cut(&format!("--token={}", "x".repeat(most))));
        assert_eq!(redacted(b""), "");
    }

    #[test]
    fn a_password_whose_address_is_cut_before_its_end_is_not_told() {
        let long = "s3cret".repeat(1000);
        for arguments in [format!("x\0https://me:{long}@host"), format!("-u\0{long}:")] {
            assert!(!redacted(arguments.as_bytes()).contains("s3cret"));
        }
    }

    /// Arguments with a secret in them, in each of the ways in which secrets are given.
    fn carriers(name: &str, value: &str) -> Vec<Vec<String>> {
        let bare = name.trim_start_matches('-');
        let alone = [
            format!("{name}={value}"),
            format!("{bare}={value}"),
            format!("--header=X-{bare}: {value}"),
            format!("--header=Authorization: Scheme {value}"),
            format!("Authorization: {value}"),
            format!("Cookie: a=b; c={value}"),
            format!("{{\"user\":\"me\",\"{bare}\":\"{value}\"}}"),
            format!("{{\"{bare}\" : [\"{value}\"]}}"),
            format!("{{\\\"{bare}\\\":\\\"{value}\\\"}}"),
            format!("https://host/a?b=c&{bare}={value}&d=e"),
            format!("https://me:{value}@host/"),
            format!("--url=amqp://{value}@host:5672/a"),
            format!("x --{bare} {value}"),
        ];
        let mut all: Vec<_> = alone.map(|argument| vec![argument]).into();
        all.push(vec![name.to_owned(), value.to_owned()]);
        all.push(vec!["-H".to_owned(), format!("{bare}: {value}")]);
        all.push(vec!["-u".to_owned(), format!("me:{value}")]);
        all
    }

    proptest! {
        #[test]
        fn no_value_of_a_secret_is_told(name in "--?[a-z-]{0,8}(password|token|secret|key)[a-z-]{0,8}", value in "[!-~ ]{12,40}", others in prop::collection::vec("[a-z/.]{0,12}", 0..6), at in any::<prop::sample::Index>()) {
            // No six bytes of it either.
            let pieces: Vec<String> = value.as_bytes().windows(6).map(drift::escape).collect();
            for carrier in carriers(&name, &value) {
                let mut arguments = others.clone();
                let place = at.index(arguments.len() + 1);
                let without = [&others[..], &carrier.iter().map(|one| one.replace(&value, "")).collect::<Vec<_>>()].concat().join(" ");
                arguments.splice(place..place, carrier);
                let told = redacted(arguments.join("\0").as_bytes());
                let is_told = |piece: &String| told.contains(piece.as_str()) && !without.contains(piece.as_str());
                prop_assert!(!pieces.iter().any(is_told), "{told}");
            }
        }

        #[test]
        fn whatever_a_process_says_is_one_bounded_line(arguments in prop::collection::vec(any::<u8>(), 0..6000)) {
            let told = redacted(&arguments);
            prop_assert!(told.len() <= Attribution::MAX_COMMAND_LINE_BYTES);
            prop_assert!(!told.chars().any(char::is_control));
        }
    }
}
