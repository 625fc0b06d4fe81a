//! Errors out of the program: the chain on standard error, the kind in the exit code (sysexits.h).

use std::error::Error;
use std::io;
use std::process::ExitCode;

use crate::bake::BakeError;
use crate::baseline::BaselineError;
use crate::check::CheckError;
use crate::diff::DiffError;
use crate::enrol::EnrolError;
use crate::inspect::InspectError;
use crate::keygen::KeygenError;
use crate::learn::LearnError;
use crate::sign::SignError;

/// Input that is wrong.
const DATA: u8 = 65;
/// Input that is not there.
const NO_INPUT: u8 = 66;
/// Output that cannot be made.
const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
const IO: u8 = 74;
/// Not permitted.
const NO_PERMISSION: u8 = 77;
/// As a shell reports SIGINT.
const INTERRUPTED: u8 = 130;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(super) struct Exit {
    code: u8,
    lines: Vec<String>,
}

impl Exit {
    /// Prints why, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        // Whoever reads our output has gone: nobody is left to tell.
        if self.lines.iter().any(|line| line.contains("Broken pipe")) {
            return ExitCode::from(141);
        }
        for (depth, line) in self.lines.iter().enumerate() {
            let lead = if depth == 0 { "error: " } else { "  because: " };
            eprintln!("{lead}{line}");
        }
        ExitCode::from(self.code)
    }

    pub(super) fn from_io(attempted: &str, error: &io::Error) -> Self {
        let mut exit = Self::of(error, IO);
        exit.lines.insert(0, attempted.to_owned());
        exit
    }

    /// The chain of causes; the innermost I/O error decides the code, if there is one.
    fn of(error: &(dyn Error + 'static), otherwise: u8) -> Self {
        let mut code = otherwise;
        let mut lines: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                code = match io.kind() {
                    io::ErrorKind::NotFound => NO_INPUT,
                    io::ErrorKind::PermissionDenied => NO_PERMISSION,
                    io::ErrorKind::Other
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::FileTooLarge
                    | io::ErrorKind::IsADirectory => otherwise,
                    _ => IO,
                };
            }
            let line = error.to_string();
            if lines.last() != Some(&line) {
                lines.push(line);
            }
            next = error.source();
        }
        Exit { code, lines }
    }
}

impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Self {
        Self::from_io("write the result", &error)
    }
}

macro_rules! exit_from {
    ($($error:ty => $code:expr,)+) => {
        $(impl From<$error> for Exit {
            fn from(error: $error) -> Self {
                Self::of(&error, $code)
            }
        })+
    };
}

exit_from! {
    KeygenError => CANNOT_CREATE,
    InspectError => DATA,
    DiffError => DATA,
    SignError => DATA,
    BaselineError => DATA,
    EnrolError => DATA,
}

impl From<BakeError> for Exit {
    fn from(error: BakeError) -> Self {
        match error {
            BakeError::Interrupted => Exit {
                code: INTERRUPTED,
                lines: vec![error.to_string()],
            },
            BakeError::Write { .. } => Exit {
                code: CANNOT_CREATE,
                ..Self::of(&error, CANNOT_CREATE)
            },
            _ => Self::of(&error, DATA),
        }
    }
}

impl From<LearnError> for Exit {
    fn from(error: LearnError) -> Self {
        match error {
            LearnError::Check(check) => check.into(),
            LearnError::Output(_) => Self::of(&error, CANNOT_CREATE),
            _ => Self::of(&error, DATA),
        }
    }
}

impl From<CheckError> for Exit {
    fn from(error: CheckError) -> Self {
        match &error {
            CheckError::Scan {
                source: crate::scan::ScanError::Interrupted,
                ..
            } => Exit {
                code: INTERRUPTED,
                lines: vec!["interrupted: there is no verdict".to_owned()],
            },
            _ => Self::of(&error, DATA),
        }
    }
}
