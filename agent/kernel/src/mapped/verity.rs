//! A verity target's two lines in, its root hash and its health out. Source: `verity_status` of Linux's
//! `drivers/md/dm-verity-target.c`, and `Documentation/admin-guide/device-mapper/verity.rst`.

/// A dm-verity device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// The hash algorithm, by the kernel's name: `sha256`.
    pub algorithm: String,
    /// The root of its hash tree: 1 to 64 bytes.
    pub root_hash: Vec<u8>,
    /// How it is.
    pub health: Health,
}

/// What the kernel met on the device since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every block that was read is as the hash tree says.
    Verified,
    /// A block was not.
    Corrupted,
}

/// No hash of Linux is longer.
const MAX_DIGEST_BYTES: usize = 64;
/// `DM_VERITY_MAX_SALT_SIZE` allows as much.
const MAX_SALT_BYTES: usize = 256;
/// The crypto layer's names are shorter (`CRYPTO_MAX_ALG_NAME`).
const MAX_ALGORITHM_BYTES: usize = 64;

impl Verity {
    /// Reads the line of the table and the line on how it is; none if either is not what this target writes.
    ///
    /// The table: version, device of the data, device of the hashes, sizes of their blocks, number of data blocks, first
    /// block of the hashes, algorithm, root, salt, and then whatever options there are.
    pub fn parse(table: &[u8], status: &[u8]) -> Option<Self> {
        let mut words = words(table)?;
        let version = number(words.next()?)?;
        (version <= 1).then_some(())?;
        device(words.next()?)?;
        device(words.next()?)?;
        let is_block = |size: u64| size.is_power_of_two() && (512..=1 << 31).contains(&size);
        (is_block(number(words.next()?)?) && is_block(number(words.next()?)?)).then_some(())?;
        number(words.next()?)?;
        number(words.next()?)?;
        let algorithm = algorithm(words.next()?)?;
        let root_hash = hex(words.next()?, MAX_DIGEST_BYTES)?;
        match words.next()? {
            b"-" => {}
            salt => drop(hex(salt, MAX_SALT_BYTES)?),
        }
        let health = match self::words(status)?.next()? {
            b"V" => Health::Verified,
            b"C" => Health::Corrupted,
            _ => return None,
        };
        Some(Verity {
            algorithm,
            root_hash,
            health,
        })
    }
}

/// Words parted by one space each; a line may end in one.
fn words(line: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let line = line.strip_suffix(b" ").unwrap_or(line);
    let words = || line.split(|byte| *byte == b' ');
    words().all(|word| !word.is_empty()).then(words)
}

fn number(word: &[u8]) -> Option<u64> {
    let digits = word.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(word)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

/// `MAJOR:MINOR`.
fn device(word: &[u8]) -> Option<()> {
    let colon = word.iter().position(|byte| *byte == b':')?;
    number(&word[..colon])?;
    number(&word[colon + 1..]).map(drop)
}

fn algorithm(word: &[u8]) -> Option<String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_().,".contains(byte);
    let fits = word.len() <= MAX_ALGORITHM_BYTES && word.iter().all(allowed);
    fits.then(|| word.iter().copied().map(char::from).collect())
}

fn hex(word: &[u8], most: usize) -> Option<Vec<u8>> {
    let (pairs, []) = word.as_chunks::<2>() else {
        return None;
    };
    if pairs.is_empty() || pairs.len() > most {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "4f2a7f5b0d9e1a8c3b6d4e5f60718293a4b5c6d7e8f90123456789abcdef0011";

    fn line(root: &str, rest: &str) -> String {
        format!("1 7:0 7:1 4096 4096 16384 1 sha256 {root} {rest}")
    }

    #[test]
    fn root_algorithm_and_health_are_read_of_what_the_kernel_writes() {
        for (rest, status, health) in [
            ("ab12", "V", Health::Verified),
            ("-", "C", Health::Corrupted),
            ("-", "V -", Health::Verified),
            ("- 1 ignore_zero_blocks", "C 3", Health::Corrupted),
            (
                "ab 2 restart_on_corruption root_hash_sig_key_desc x ",
                "V ",
                Health::Verified,
            ),
        ] {
            let read = Verity::parse(line(ROOT, rest).as_bytes(), status.as_bytes());
            let read = read.unwrap_or_else(|| panic!("{rest} {status}"));
            assert_eq!((&read.algorithm[..], read.health), ("sha256", health));
            assert_eq!(read.root_hash.len(), 32);
            assert_eq!((read.root_hash[0], read.root_hash[31]), (0x4f, 0x11));
        }
        let loaded = "0 254:3 254:4 512 1024 8 0 sha512-generic abcd -";
        assert!(Verity::parse(loaded.as_bytes(), b"V").is_some());
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "ab".repeat(65);
        let salt = "ab".repeat(257);
        let tables = [
            String::new(),
            " ".to_owned(),
            "1".to_owned(),
            line(ROOT, ""),
            line("", "-"),
            line("-", "-"),
            line("abc", "-"),
            line("xy", "-"),
            line(&long, "-"),
            line(ROOT, &salt),
            line(ROOT, "xyz"),
            line(ROOT, "- ").replace("sha256", "sha256\u{e9}"),
            line(ROOT, "-").replace("sha256", &"s".repeat(65)),
            line(ROOT, "-").replacen('1', "2", 1),
            line(ROOT, "-").replacen('1', "+1", 1),
            line(ROOT, "-").replace("7:0", "7"),
            line(ROOT, "-").replace("7:0", "/dev/sda"),
            line(ROOT, "-").replace(" 4096 4096", " 4095 4096"),
            line(ROOT, "-").replace(" 4096 4096", " 4096 0"),
            line(ROOT, "-").replace("16384", "99999999999999999999"),
            line(ROOT, "-").replace(' ', "  "),
            line(ROOT, "-").replace(' ', "\t"),
        ];
        for table in tables {
            assert_eq!(Verity::parse(table.as_bytes(), b"V"), None, "{table:?}");
        }
        for status in ["", " ", "VC", "v", "X", "V  -", " V"] {
            let table = line(ROOT, "-");
            assert_eq!(
                Verity::parse(table.as_bytes(), status.as_bytes()),
                None,
                "{status:?}"
            );
        }
    }
}
