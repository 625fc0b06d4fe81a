//! The arguments of a process in, a line without what looks like a secret out.
//!
//! It leaves out too much rather than too little, and cannot know everything: a secret that is given without its name
//! (`mysql -psecret`) is told. Who must not have any of it told says so (`attribution.command-line`).

use drift::attribution::Attribution;

use super::{cut, shown};

/// Arguments as `/proc/PID/cmdline` has them, parted by NUL, as a line of at most
/// [`Attribution::MAX_COMMAND_LINE_BYTES`]: values after options whose name speaks of a secret, of such variables and
/// headers, and passwords in addresses, are `***`.
pub fn redacted(arguments: &[u8]) -> String {
    let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    let mut line = Line::default();
    for argument in arguments.split(|byte| *byte == 0) {
        // A script on a command line is a command line.
        for word in argument.split(u8::is_ascii_whitespace) {
            line.take(word);
        }
    }
    cut(line.text, Attribution::MAX_COMMAND_LINE_BYTES)
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
/// Their value is `NAME:PASSWORD`.
const USERS: [&str; 4] = ["-u", "--user", "-U", "--proxy-user"];

#[derive(Default)]
struct Line {
    text: String,
    next: Next,
}

/// What the word before says of the next one.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    #[default]
    Plain,
    Secret,
    User,
}

impl Line {
    fn take(&mut self, word: &[u8]) {
        let word = shown(word, Attribution::MAX_COMMAND_LINE_BYTES);
        let (told, next) = match self.next {
            // An option without a value, and then the next option.
            Next::Secret if word.is_empty() => (String::new(), Next::Secret),
            Next::Secret if !word.starts_with("--") => {
                // `Authorization: Bearer VALUE`
                let is_scheme = ["basic", "bearer", "digest", "negotiate"]
                    .contains(&word.to_ascii_lowercase().as_str());
                (
                    if is_scheme { word } else { HIDDEN.to_owned() },
                    if is_scheme { Next::Secret } else { Next::Plain },
                )
            }
            Next::User => (without_password(&word), Next::Plain),
            _ => told(&word),
        };
        self.next = next;
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        // More than is kept is not gathered.
        if self.text.len() <= Attribution::MAX_COMMAND_LINE_BYTES {
            self.text.push_str(&told);
        }
    }
}

/// A word by itself, and what it says of the next one. Each part of a query has a name and a value of its own.
fn told(word: &str) -> (String, Next) {
    let mut next = Next::Plain;
    let parts = word.split_inclusive(['?', '&']).map(|part| {
        let end = part.strip_suffix(['?', '&']).unwrap_or(part);
        let (told, after) = told_part(end);
        next = after;
        told + &part[end.len()..]
    });
    (parts.collect(), next)
}

fn told_part(word: &str) -> (String, Next) {
    if USERS.contains(&word) {
        return (word.to_owned(), Next::User);
    }
    if let Some((name, value)) = word.split_once('=') {
        if speaks_of_a_secret(name) && !value.is_empty() {
            return (format!("{name}={HIDDEN}"), Next::Plain);
        }
        if USERS.contains(&name) {
            return (format!("{name}={}", without_password(value)), Next::Plain);
        }
        return (
            format!("{name}={}", without_address_password(value)),
            Next::Plain,
        );
    }
    if let Some((name, value)) = word
        .split_once(':')
        .filter(|(name, _)| speaks_of_a_secret(name))
    {
        return match value {
            "" => (word.to_owned(), Next::Secret),
            _ => (format!("{name}:{HIDDEN}"), Next::Plain),
        };
    }
    let next = match word.strip_prefix('-') {
        Some(name) if speaks_of_a_secret(name) => Next::Secret,
        _ => Next::Plain,
    };
    (without_address_password(word), next)
}

fn speaks_of_a_secret(name: &str) -> bool {
    // Not of an address: what is in it is looked for there.
    if name.contains('/') {
        return false;
    }
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// `NAME:PASSWORD`
fn without_password(word: &str) -> String {
    match word.split_once(':') {
        Some((name, _)) => format!("{name}:{HIDDEN}"),
        None => word.to_owned(),
    }
}

/// `SCHEME://NAME:PASSWORD@HOST`
fn without_address_password(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!(
            "{scheme}://{}{}",
            without_password(&rest[..at]),
            &rest[at..]
        ),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(arguments: &[&str]) -> String {
        redacted(arguments.join("\0").as_bytes())
    }

    #[test]
    fn secrets_are_left_out_and_nothing_else_is() {
        let table: [(&[&str], &str); 18] = [
            (&["ls", "-l", "/etc"], "ls -l /etc"),
            (&["x", "--password", "s3cret", "-v"], "x --password *** -v"),
            (&["x", "--password=s3cret"], "x --password=***"),
            (
                &["x", "--no-password", "--verbose"],
                "x --no-password --verbose",
            ),
            (&["x", "-Dapi.key=s3cret"], "x -Dapi.key=***"),
            (
                &["env", "AWS_SECRET_ACCESS_KEY=s3cret", "aws"],
                "env AWS_SECRET_ACCESS_KEY=*** aws",
            ),
            (&["x", "--api-TOKEN", "s3cret"], "x --api-TOKEN ***"),
            (&["curl", "-u", "me:s3cret", "x"], "curl -u me:*** x"),
            (&["curl", "--user=me:s3cret"], "curl --user=me:***"),
            (
                &["curl", "https://me:s3cret@host/a:b@c"],
                "curl https://me:***@host/a:b@c",
            ),
            (
                &["x", "--url=postgres://me:s3cret@host/db"],
                "x --url=postgres://me:***@host/db",
            ),
            (
                &["curl", "-H", "Authorization: Bearer s3cret", "x"],
                "curl -H Authorization: Bearer *** x",
            ),
            (&["curl", "-H", "X-Api-Key:s3cret"], "curl -H X-Api-Key:***"),
            (
                &["sh", "-c", "mysql --password=s3cret | x"],
                "sh -c mysql --password=*** | x",
            ),
            (
                &["sh", "-c", "A_TOKEN=s3cret x --token s3cret"],
                "sh -c A_TOKEN=*** x --token ***",
            ),
            (
                &["x", "https://me:s3cret@host/?a=b&token=s3cret&c=d"],
                "x https://me:***@host/?a=b&token=***&c=d",
            ),
            (&["x", "--key"], "x --key"),
            (&["x", "a\nb\u{1b}[31m"], "x a b\\x1b[31m"),
        ];
        for (arguments, expected) in table {
            assert_eq!(line(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let long = "x".repeat(100_000);
        assert!(line(&[&long]).len() <= Attribution::MAX_COMMAND_LINE_BYTES);
        let many = "y\0".repeat(100_000);
        let line = redacted(many.as_bytes());
        assert!(line.len() <= Attribution::MAX_COMMAND_LINE_BYTES && line.ends_with('…'));
        assert_eq!(redacted(b""), "");
    }

    proptest! {
        #[test]
        fn no_value_of_a_secret_option_is_told(name in "--?[a-z-]{0,8}(password|token|secret|key)[a-z-]{0,8}", value in "[A-Z0-9]{12,40}", others in prop::collection::vec("[a-z/.]{0,12}", 0..6), at in any::<prop::sample::Index>(), apart in any::<bool>()) {
            let mut arguments: Vec<String> = others;
            let place = at.index(arguments.len() + 1);
            if apart {
                arguments.insert(place, value.clone());
                arguments.insert(place, name);
            } else {
                arguments.insert(place, format!("{name}={value}"));
            }
            let told = redacted(arguments.join("\0").as_bytes());
            prop_assert!(!told.contains(&value), "{told}");
        }

        #[test]
        fn whatever_a_process_says_is_one_bounded_line(arguments in prop::collection::vec(any::<u8>(), 0..6000)) {
            let told = redacted(&arguments);
            prop_assert!(told.len() <= Attribution::MAX_COMMAND_LINE_BYTES);
            prop_assert!(!told.chars().any(char::is_control));
        }
    }
}
