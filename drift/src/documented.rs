//! Receives the definition of a configuration type; hands on the type, and its doc comments as a table.
//!
//! Manual pages and default configurations are made of that table, so they say what the source says. A program that
//! does not ask for it does not contain it.

/// One key of a configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As the type spells it; the file has `-` where this has `_`.
    pub name: &'static str,
    /// Its doc comment, line by line.
    pub lines: &'static [&'static str],
    /// What may stand behind it.
    pub shown: Shown,
}

/// What may stand behind a key.
#[derive(Debug, Clone, Copy)]
pub enum Shown {
    /// A value, as TOML: the default, or an example where there is none.
    Value(&'static str),
    /// The keys of a section.
    Section(&'static [Key]),
}

/// Defines a structure whose fields each have a doc comment and `= VALUE`, or `=> TYPE` for a section of its own, and
/// gives it `KEYS`, a table of them.
#[macro_export]
macro_rules! documented {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $line:literal])+
                $field_visibility:vis $field:ident: $type:ty $(= $value:expr)? $(=> $section:ty)?,
            )+
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[doc = $line])+ $field_visibility $field: $type,)+
        }

        impl $name {
            /// Every key with its documentation, for the manual page and the default configuration.
            pub const KEYS: &'static [$crate::documented::Key] = &[$(
                $crate::documented::Key {
                    name: stringify!($field),
                    lines: &[$($line),+],
                    shown: $($crate::documented::Shown::Value(stringify!($value)))?
                        $($crate::documented::Shown::Section(<$section>::KEYS))?,
                },
            )+];
        }
    };
}
