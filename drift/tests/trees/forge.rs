//! A hostile signer: manifests whose digests are right and whose content is anything.

use drift::Blake3;
use drift::TreePath;
use drift::manifest::{BLOCK_BYTES, Builder, ManifestError, UnverifiedManifest};

const PREAMBLE_BYTES: usize = 40;

/// The parts of a manifest's file.
#[derive(Debug, Clone)]
pub struct Parts {
    pub header: Vec<u8>,
    pub body: Vec<u8>,
    pub table: Vec<u8>,
    pub side: Vec<u8>,
}

impl Parts {
    /// Takes a file apart; none where its lengths do not fit it.
    pub fn of(manifest: &[u8]) -> Option<Self> {
        let length = |at: usize| Some(u64::from_le_bytes(*manifest.get(at..)?.first_chunk()?));
        let header_bytes = usize::try_from(length(16)?).ok()?;
        let body_bytes = usize::try_from(length(24)?).ok()?;
        let mut rest = manifest.get(PREAMBLE_BYTES..)?;
        let header = rest.split_off(..header_bytes)?.to_vec();
        let body = rest.split_off(..body_bytes)?.to_vec();
        let table = rest
            .split_off(..body_bytes.div_ceil(BLOCK_BYTES) * 32)?
            .to_vec();
        Some(Parts {
            header,
            body,
            table,
            side: rest.to_vec(),
        })
    }

    /// Two bytes that say how long the header is, header, body; the side section as long as the header asks for.
    /// A fuzzer that changes these never has to guess a digest.
    pub fn hostile(data: &[u8]) -> Option<Self> {
        let (length, mut rest) = data.split_first_chunk()?;
        let header = rest
            .split_off(..usize::from(u16::from_le_bytes(*length)))?
            .to_vec();
        let files = take_number(&mut &header[..])?;
        Some(Parts {
            header,
            body: rest.to_vec(),
            table: Vec::new(),
            side: side_of(files),
        })
    }

    /// Puts a file together whose lengths and block digests are right.
    pub fn seal(&self) -> Vec<u8> {
        let mut preamble = b"drftmark\x02\0\0\0\0\0\x01\0".to_vec();
        preamble.extend_from_slice(&(self.header.len() as u64).to_le_bytes());
        preamble.extend_from_slice(&(self.body.len() as u64).to_le_bytes());
        preamble.extend_from_slice(&[0; 8]);
        let table: Vec<u8> = self
            .body
            .chunks(BLOCK_BYTES)
            .flat_map(|block| *Blake3::of(block).as_bytes())
            .collect();
        [&preamble, &self.header[..], &self.body, &table, &self.side].concat()
    }
}

/// The side section of so many files, all written in the first moment of 1970.
fn side_of(files: u64) -> Vec<u8> {
    let mut run = Vec::new();
    if files > 0 {
        let mut count = files;
        while count >= 0x80 {
            run.push(count as u8 | 0x80);
            count >>= 7;
        }
        run.extend([count as u8, 0, 0]);
    }
    let length = (run.len() as u64).to_le_bytes();
    [&b"drftside"[..], &length, &run].concat()
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let end = bytes
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .filter(|&end| end < 9)?;
    let taken = bytes.split_off(..=end)?;
    Some(
        taken
            .iter()
            .rev()
            .fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f)),
    )
}

/// Reads everything that there is to read, bounded and without a panic; what passes as whole has one spelling.
pub fn exercise(manifest: &[u8]) {
    let Ok(opened) = UnverifiedManifest::open(manifest) else {
        return;
    };
    let mut paths = vec![TreePath::root(), TreePath::new(b"a/b").unwrap()];
    let mut before: Option<TreePath> = None;
    let mut ended = false;
    for entry in opened.entries() {
        assert!(!ended, "a pass goes on after its first error");
        let Ok(entry) = entry else {
            ended = true;
            continue;
        };
        assert!(
            before.is_none_or(|before| before < entry.path),
            "entries come in order"
        );
        if paths.len() < 8 {
            paths.push(entry.path.clone());
        }
        before = Some(entry.path);
    }
    for path in &paths {
        let _ = opened.lookup(path);
        let _ = opened.origin(path);
    }
    if opened.verify_all().is_ok() {
        assert_eq!(
            again(&opened).unwrap(),
            Parts {
                side: Vec::new(),
                ..Parts::of(manifest).unwrap()
            }
            .seal()
        );
    }
}

/// The same manifest, baked again from what was read of it, without its side section.
fn again(opened: &UnverifiedManifest<&[u8]>) -> Result<Vec<u8>, ManifestError> {
    let packages = opened.packages()?;
    let mut builder = Builder::default();
    for numbered in opened.entries().numbered() {
        let numbered = numbered?;
        let origin = opened.origin_of(&numbered, &packages)?;
        builder.push(numbered.entry, origin.sha256, origin.package, (0, 0));
    }
    let header = opened.header();
    let baked = builder.finish(
        header.rules.clone(),
        header.filesystems.clone(),
        header.not_held,
    );
    let parts = Parts::of(&baked.unwrap().bytes).unwrap();
    Ok(Parts {
        side: Vec::new(),
        ..parts
    }
    .seal())
}
