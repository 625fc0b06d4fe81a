//! Whether everything that one pattern matches is matched by another: exact, by walking both at once.
//!
//! One position of the inner pattern is walked together with the set of positions of the outer one, over the bytes
//! that occur in either, `/`, and one byte that stands for all others.

use std::collections::HashSet;

use super::{Pattern, Positions, Token, arrive};

/// Steps after which the answer is "no": a hostile pair of patterns must not hold up a bake. Patterns that people
/// write need a few thousand.
const MAX_STEPS: usize = 1 << 20;

/// What the outer pattern is asked to cover.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// Each path of the inner one, by itself.
    Path,
    /// Each path of the inner one, by itself or by a directory that it is in.
    PathOrParent,
}

impl Pattern {
    /// Whether every path that `other` matches is matched by this pattern.
    ///
    /// Exact; "no" for a pair so intricate that it would take too long to tell.
    pub fn includes(&self, other: &Pattern) -> bool {
        self.covers(other, Cover::Path)
    }

    /// Whether every path that `other` matches is matched by this pattern or lies below a path that is.
    ///
    /// Exact in the same way as [`Pattern::includes`].
    pub fn includes_below(&self, other: &Pattern) -> bool {
        self.tokens.is_empty() || self.covers(other, Cover::PathOrParent)
    }

    fn covers(&self, inner: &Pattern, cover: Cover) -> bool {
        if self.spelling == inner.spelling {
            return true;
        }
        if self.tokens.is_empty()
            || inner.tokens.is_empty()
            || !inner.prefix.starts_with(&self.prefix)
        {
            return false;
        }
        Walk {
            outer: self,
            inner,
            cover,
            steps: 0,
            seen: HashSet::new(),
            open: Vec::new(),
        }
        .holds()
    }
}

/// A pair of positions: what is left of both patterns after the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Pair {
    inner: u16,
    outer: Vec<u16>,
    /// Whether a component has just begun: no path goes on with `/`, or ends, here.
    component: Component,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Component {
    Empty,
    Begun,
}

struct Walk<'p> {
    outer: &'p Pattern,
    inner: &'p Pattern,
    cover: Cover,
    steps: usize,
    seen: HashSet<Pair>,
    open: Vec<Pair>,
}

impl Walk<'_> {
    fn holds(mut self) -> bool {
        let alphabet = self.alphabet();
        let mut inner = Vec::new();
        arrive(&mut inner, &self.inner.tokens, 0);
        let outer = Positions::start(&self.outer.tokens).now;
        for inner in inner {
            self.reach(Pair {
                inner,
                outer: outer.clone(),
                component: Component::Empty,
            });
        }
        while let Some(pair) = self.open.pop() {
            let ended = usize::from(pair.inner) == self.inner.tokens.len();
            if ended && pair.component == Component::Begun && !self.accepted(&pair.outer) {
                return false;
            }
            for &byte in &alphabet {
                if self.steps > MAX_STEPS {
                    return false;
                }
                self.follow(&pair, byte);
            }
        }
        true
    }

    fn follow(&mut self, pair: &Pair, byte: u8) {
        self.steps += 1;
        let slash = byte == b'/';
        let next = match self.inner.tokens.get(usize::from(pair.inner)) {
            Some(Token::Byte(expected)) if *expected == byte => pair.inner + 1,
            Some(Token::One) if !slash => pair.inner + 1,
            Some(Token::Within) if !slash => pair.inner,
            Some(Token::Across) => pair.inner,
            _ => return,
        };
        if slash && pair.component == Component::Empty {
            return;
        }
        if slash && self.cover == Cover::PathOrParent && self.accepted(&pair.outer) {
            return;
        }
        self.steps += pair.outer.len();
        let mut outer = Positions {
            now: pair.outer.clone(),
            next: Vec::new(),
        };
        outer.step(&self.outer.tokens, byte);
        let component = if slash {
            Component::Empty
        } else {
            Component::Begun
        };
        let mut inner = Vec::new();
        arrive(&mut inner, &self.inner.tokens, next);
        for inner in inner {
            self.reach(Pair {
                inner,
                outer: outer.now.clone(),
                component,
            });
        }
    }

    fn reach(&mut self, pair: Pair) {
        if self.seen.insert(pair.clone()) {
            self.open.push(pair);
        }
    }

    fn accepted(&self, outer: &[u16]) -> bool {
        outer
            .last()
            .is_some_and(|&at| usize::from(at) == self.outer.tokens.len())
    }

    /// The bytes that either pattern names, `/`, and one that neither does.
    fn alphabet(&self) -> Vec<u8> {
        let mut named = [false; 256];
        named[usize::from(b'/')] = true;
        for token in self.outer.tokens.iter().chain(&*self.inner.tokens) {
            if let Token::Byte(byte) = token {
                named[usize::from(*byte)] = true;
            }
        }
        let mut alphabet: Vec<u8> = (1..=255).filter(|&byte| named[usize::from(byte)]).collect();
        alphabet.extend((1..=255).find(|&byte: &u8| !named[usize::from(byte)]));
        alphabet
    }
}
