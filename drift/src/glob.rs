//! Path patterns over bytes: what a rule points at, and whether one pattern says all that another says.
//!
//! `*` and `?` stop at `/`, `**` does not, `\` takes the next byte as it is; nothing else is special.
//! Matching walks a set of positions in the pattern, so its cost is at most pattern × path and never exponential.

mod inclusion;

use std::fmt;

use crate::{TreePath, escape};

/// An absolute path pattern, checked at construction and kept in its one canonical spelling.
///
/// The root of the tree is matched by `/` alone; wildcards match what is below it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    spelling: Box<[u8]>,
    tokens: Box<[Token]>,
    /// The literal bytes before the first wildcard: most patterns are refused by them alone.
    prefix: Box<[u8]>,
    /// The literal bytes after the last wildcard.
    suffix: Box<[u8]>,
}

/// One element of a pattern, without its leading `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Token {
    /// Exactly this byte.
    Byte(u8),
    /// `?`: one byte that is not `/`.
    One,
    /// `*`: any bytes but `/`.
    Within,
    /// `**`: any bytes.
    Across,
}

/// Why bytes are not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Nothing there.
    #[error("pattern is empty")]
    Empty,
    /// Longer than [`Pattern::MAX_BYTES`].
    #[error("pattern is longer than {} bytes", Pattern::MAX_BYTES)]
    TooLong,
    /// It does not begin with `/`.
    #[error("pattern is not absolute")]
    Relative,
    /// An empty component, `.` or `..`: no path has one.
    #[error("pattern has an empty, `.` or `..` component")]
    Component,
    /// A NUL byte, which no path can hold.
    #[error("pattern has a NUL byte")]
    Nul,
    /// A `\` with nothing after it.
    #[error("pattern ends in a lone `\\`")]
    Escape,
}

impl Pattern {
    /// The longest pattern in bytes: the kernel's `PATH_MAX`; nothing that people write comes near it.
    pub const MAX_BYTES: usize = 4096;

    /// Takes a pattern as it is written.
    ///
    /// # Errors
    /// See [`BadPattern`].
    pub fn new(bytes: &[u8]) -> Result<Self, BadPattern> {
        if bytes.is_empty() {
            return Err(BadPattern::Empty);
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(BadPattern::TooLong);
        }
        let relative = bytes.strip_prefix(b"/").ok_or(BadPattern::Relative)?;
        let tokens = parse(relative)?;
        check_components(&tokens)?;
        let literal = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        };
        let prefix = tokens.iter().map_while(literal).collect();
        let mut suffix: Vec<u8> = tokens.iter().rev().map_while(literal).collect();
        suffix.reverse();
        Ok(Self {
            spelling: spell(&tokens),
            prefix,
            suffix: suffix.into(),
            tokens: tokens.into(),
        })
    }

    /// The canonical spelling: `\` only where it is needed, never more than two `*` in a row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.spelling
    }

    /// Whether it has no wildcard: it matches exactly one path.
    pub fn is_literal(&self) -> bool {
        self.prefix.len() == self.tokens.len()
    }

    /// The one path that a literal pattern matches, as bytes without the leading `/`.
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        self.is_literal().then_some(&self.prefix)
    }

    /// Whether it matches this very path.
    pub fn matches(&self, path: &TreePath) -> bool {
        let bytes = path.as_bytes();
        if bytes.is_empty() || self.is_literal() {
            return *bytes == *self.prefix && self.is_literal();
        }
        bytes.starts_with(&self.prefix)
            && bytes.ends_with(&self.suffix)
            && self.run(bytes, |_| false).accepts(self)
    }

    /// Whether it matches this path or a directory that this path is in.
    pub fn matches_or_contains(&self, path: &TreePath) -> bool {
        self.matches(path) || self.contains(path)
    }

    /// Whether it matches a directory that this path is in.
    pub fn contains(&self, path: &TreePath) -> bool {
        let bytes = path.as_bytes();
        if self.is_literal() {
            return match bytes.strip_prefix(&*self.prefix) {
                Some(rest) if self.prefix.is_empty() => !rest.is_empty(),
                Some(rest) => rest.first() == Some(&b'/'),
                None => false,
            };
        }
        if !bytes.starts_with(&self.prefix) {
            return false;
        }
        let mut contains = false;
        self.run(bytes, |positions| {
            contains |= positions.accepts(self);
            contains
        });
        contains
    }

    /// Whether it could match a path strictly below this directory.
    pub fn may_match_below(&self, directory: &TreePath) -> bool {
        let bytes = directory.as_bytes();
        if bytes.is_empty() {
            return !self.tokens.is_empty();
        }
        let common = bytes.len().min(self.prefix.len());
        if bytes[..common] != self.prefix[..common] {
            return false;
        }
        let mut positions = self.run(bytes, |_| false);
        positions.step(&self.tokens, b'/');
        !positions.now.is_empty()
    }

    /// Walks the pattern over a path; `at_slash` sees the positions before each `/` and ends the walk by `true`.
    fn run(&self, path: &[u8], mut at_slash: impl FnMut(&Positions) -> bool) -> Positions {
        let mut positions = Positions::start(&self.tokens);
        for &byte in path {
            if (byte == b'/' && at_slash(&positions)) || positions.now.is_empty() {
                break;
            }
            positions.step(&self.tokens, byte);
        }
        positions
    }
}

/// Safe to print anywhere.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A pattern's own backslashes are shown as they are written; everything else is escaped as in paths.
        let parts: Vec<String> = self
            .spelling
            .split(|&byte| byte == b'\\')
            .map(escape)
            .collect();
        f.pad(&parts.join("\\"))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

/// Where in a pattern a walk can be, ascending and each once; the pattern's length means accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Positions {
    now: Vec<u16>,
    next: Vec<u16>,
}

impl Positions {
    fn start(tokens: &[Token]) -> Self {
        let mut positions = Self {
            now: Vec::with_capacity(8),
            next: Vec::with_capacity(8),
        };
        arrive(&mut positions.now, tokens, 0);
        positions
    }

    fn step(&mut self, tokens: &[Token], byte: u8) {
        self.next.clear();
        for &at in &self.now {
            match tokens.get(usize::from(at)) {
                Some(Token::Byte(expected)) if *expected == byte => {
                    arrive(&mut self.next, tokens, at + 1);
                }
                Some(Token::One) if byte != b'/' => arrive(&mut self.next, tokens, at + 1),
                Some(Token::Within) if byte != b'/' => arrive(&mut self.next, tokens, at),
                Some(Token::Across) => arrive(&mut self.next, tokens, at),
                _ => {}
            }
        }
        std::mem::swap(&mut self.now, &mut self.next);
    }

    fn accepts(&self, pattern: &Pattern) -> bool {
        self.now
            .last()
            .is_some_and(|&at| usize::from(at) == pattern.tokens.len())
    }
}

/// Adds a position, and the one after it if a wildcard there may match nothing (two never stand side by side).
///
/// Positions come in ascending order but for those that are there already: see `Positions::step`.
fn arrive(positions: &mut Vec<u16>, tokens: &[Token], at: u16) {
    let mut add = |at: u16| {
        if positions.last().is_none_or(|&last| last < at) {
            positions.push(at);
        }
    };
    add(at);
    if matches!(
        tokens.get(usize::from(at)),
        Some(Token::Within | Token::Across)
    ) {
        add(at + 1);
    }
}

fn parse(relative: &[u8]) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::with_capacity(relative.len());
    let mut bytes = relative.iter().copied();
    while let Some(byte) = bytes.next() {
        let token = match byte {
            b'\\' => Token::Byte(bytes.next().ok_or(BadPattern::Escape)?),
            b'?' => Token::One,
            b'*' => match tokens.last_mut() {
                Some(last @ (Token::Within | Token::Across)) => {
                    *last = Token::Across;
                    continue;
                }
                _ => Token::Within,
            },
            byte => Token::Byte(byte),
        };
        if token == Token::Byte(0) {
            return Err(BadPattern::Nul);
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn check_components(tokens: &[Token]) -> Result<(), BadPattern> {
    const DOT: Token = Token::Byte(b'.');
    if tokens.is_empty() {
        return Ok(());
    }
    for component in tokens.split(|&token| token == Token::Byte(b'/')) {
        if matches!(component, [] | [DOT] | [DOT, DOT]) {
            return Err(BadPattern::Component);
        }
    }
    Ok(())
}

fn spell(tokens: &[Token]) -> Box<[u8]> {
    let mut spelling = vec![b'/'];
    for token in tokens {
        match token {
            Token::Byte(byte) => {
                if matches!(byte, b'*' | b'?' | b'\\') {
                    spelling.push(b'\\');
                }
                spelling.push(*byte);
            }
            Token::One => spelling.push(b'?'),
            Token::Within => spelling.push(b'*'),
            Token::Across => spelling.extend_from_slice(b"**"),
        }
    }
    spelling.into()
}

#[cfg(test)]
mod tests;
