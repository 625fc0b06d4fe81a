//! Rule files as people write them: TOML in, [`SourcedRule`]s out.

use super::{Rule, RuleType, Rules, Shape};
use crate::TreePath;
use crate::glob::{BadPattern, Pattern};
use crate::written::{self, BadText, Keys, Problem, Readable, Value, word};

/// A rule file, read and checked by itself.
///
/// The key `with`, of one rule or at the file's head for all of them, names the program that does what is allowed:
/// an image without it does not get the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// What it is called in messages.
    pub name: String,
    /// Its rules in order, one for each path that is written.
    pub rules: Vec<SourcedRule>,
}

/// A rule with where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedRule {
    /// The rule.
    pub rule: Rule,
    /// The file that it comes from.
    pub file: String,
    /// Which `[[rule]]` of the file, from 1.
    pub number: usize,
    /// Who wrote the file.
    pub origin: Origin,
    /// Why it is allowed. For people; no part of the manifest.
    pub reason: Option<String>,
    /// The program that needs it: the rule counts only in an image that has this path. Decided at bake; no part of
    /// the manifest.
    pub with: Option<TreePath>,
}

/// Who wrote a rule file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The image's maker: these rules come first.
    Image,
    /// The distribution that the image is made from.
    Distribution,
}

/// Why text is not a rule file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRuleFile {
    /// It is longer than [`RuleFile::MAX_BYTES`].
    #[error("read rules {file}: longer than {} bytes", RuleFile::MAX_BYTES)]
    TooLong {
        /// The file.
        file: String,
    },
    /// Not TOML, an unknown or doubled key, an unknown type.
    #[error("read rules {file}")]
    Syntax {
        /// The file.
        file: String,
        /// What is wrong, with its line.
        source: BadText,
    },
    /// Keys that do not go together.
    #[error("rule {number} of {file}: {problem}")]
    Keys {
        /// The file.
        file: String,
        /// Which rule, from 1.
        number: usize,
        /// What does not go together.
        problem: &'static str,
    },
    /// A path is not a pattern.
    #[error("rule {number} of {file}: path {pattern:?}")]
    Pattern {
        /// The file.
        file: String,
        /// Which rule, from 1.
        number: usize,
        /// The path as written.
        pattern: String,
        /// What is wrong with it.
        source: BadPattern,
    },
    /// `with` names no path.
    #[error("read rules {file}: `with` {with:?} is not the absolute path of a file")]
    With {
        /// The file.
        file: String,
        /// The path as written.
        with: String,
    },
    /// More than [`Rules::MAX_COUNT`].
    #[error("read rules {file}: more than {} rules", Rules::MAX_COUNT)]
    TooMany {
        /// The file.
        file: String,
    },
}

struct Written {
    with: Option<String>,
    rule: Vec<WrittenRule>,
}

struct WrittenRule {
    r#type: WrittenType,
    path: Option<String>,
    paths: Option<Vec<String>>,
    shape: Option<Shape>,
    reason: Option<String>,
    with: Option<String>,
}

/// The word `shape` is none until the key `shape` says which.
#[derive(Clone, Copy)]
struct WrittenType(Option<RuleType>);

impl Readable for Written {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        let keys = Keys::of(value, &["with", "rule"])?;
        Ok(Self {
            with: keys.read("with")?,
            rule: keys.read("rule")?.unwrap_or_default(),
        })
    }
}

impl Readable for WrittenRule {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        let known = ["type", "path", "paths", "shape", "reason", "with"];
        let keys = Keys::of(value, &known)?;
        Ok(Self {
            r#type: keys.need("type")?,
            path: keys.read("path")?,
            paths: keys.read("paths")?,
            shape: keys.read("shape")?,
            reason: keys.read("reason")?,
            with: keys.read("with")?,
        })
    }
}

impl Readable for WrittenType {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        let types = RuleType::ALL.map(|known| match known {
            RuleType::Shape(_) => ("shape", Self(None)),
            plain => (plain.word(), Self(Some(plain))),
        });
        // The shapes come last in it, and are one word here.
        word(value, &types[..types.len() - Shape::ALL.len() + 1])
    }
}

impl Readable for Shape {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        word(value, &Shape::ALL.map(|shape| (shape.word(), shape)))
    }
}

impl RuleFile {
    /// A hundred times the longest that ships.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// Reads a rule file; `name` is what it is called in messages.
    ///
    /// # Errors
    /// See [`BadRuleFile`]. Shadowing is checked when all files are put together: [`Rules::build`].
    pub fn parse(name: &str, text: &str) -> Result<Self, BadRuleFile> {
        let file = || name.to_owned();
        if text.len() > Self::MAX_BYTES {
            return Err(BadRuleFile::TooLong { file: file() });
        }
        let written: Written = written::read(text).map_err(|source| BadRuleFile::Syntax {
            file: file(),
            source,
        })?;
        let mut rules = Vec::new();
        let of_file = with(name, written.with.as_deref())?;
        for (index, written) in written.rule.into_iter().enumerate() {
            let number = index + 1;
            let keys = |problem| BadRuleFile::Keys {
                file: file(),
                number,
                problem,
            };
            let rule_type = written.rule_type().map_err(keys)?;
            let own = with(name, written.with.as_deref())?;
            for text in written.paths().map_err(keys)? {
                let pattern =
                    Pattern::new(text.as_bytes()).map_err(|source| BadRuleFile::Pattern {
                        file: file(),
                        number,
                        pattern: text.clone(),
                        source,
                    })?;
                if rules.len() == Rules::MAX_COUNT {
                    return Err(BadRuleFile::TooMany { file: file() });
                }
                rules.push(SourcedRule {
                    rule: Rule { rule_type, pattern },
                    file: file(),
                    number,
                    origin: Origin::Image,
                    reason: written.reason.clone(),
                    with: own.clone().or_else(|| of_file.clone()),
                });
            }
        }
        Ok(Self {
            name: file(),
            rules,
        })
    }
}

/// The path that `with` names: absolute and plain, a pattern would hide what is asked.
fn with(file: &str, written: Option<&str>) -> Result<Option<TreePath>, BadRuleFile> {
    let Some(text) = written else { return Ok(None) };
    let path = text
        .strip_prefix('/')
        .filter(|relative| !relative.is_empty())
        .and_then(|relative| TreePath::new(relative.as_bytes()).ok());
    path.map(Some).ok_or_else(|| BadRuleFile::With {
        file: file.to_owned(),
        with: text.to_owned(),
    })
}

impl WrittenRule {
    fn rule_type(&self) -> Result<RuleType, &'static str> {
        match (self.r#type.0, self.shape) {
            (Some(plain), None) => Ok(plain),
            (None, Some(shape)) => Ok(RuleType::Shape(shape)),
            (None, None) => Err("type `shape` needs the key `shape`"),
            (Some(_), Some(_)) => Err("the key `shape` goes with type `shape` alone"),
        }
    }

    fn paths(&self) -> Result<Vec<String>, &'static str> {
        match (&self.path, &self.paths) {
            (Some(path), None) => Ok(vec![path.clone()]),
            (None, Some(paths)) if !paths.is_empty() => Ok(paths.clone()),
            (None, Some(_)) => Err("`paths` is empty"),
            (None, None) => Err("neither `path` nor `paths` is there"),
            (Some(_), Some(_)) => Err("both `path` and `paths` are there"),
        }
    }
}
