//! A root in; every regular file below it out, by directory, for whoever reads them afterwards.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::ffi::CStr;

/// Every regular file of a tree.
#[derive(Debug, Clone)]
pub struct List {
    /// Those that hold files, in the order in which they were listed.
    pub directories: Vec<PathBuf>,
    /// Those of a directory one after the other.
    pub files: Vec<File>,
    /// Their lengths together.
    pub bytes: u64,
}

/// A regular file.
#[derive(Debug, Clone)]
pub struct File {
    /// Which of the list's directories it is in.
    pub directory: usize,
    /// Its name there.
    pub name: CString,
    /// Its length.
    pub size: u64,
    /// Its number in the file system.
    pub inode: u64,
}

impl List {
    /// Lists a tree; symbolic links are not followed.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut list = List {
            directories: Vec::new(),
            files: Vec::new(),
            bytes: 0,
        };
        let mut left = vec![root.to_owned()];
        while let Some(directory) = left.pop() {
            let number = list.directories.len();
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    left.push(entry.path());
                } else if kind.is_file() {
                    let meta = entry.metadata()?;
                    list.bytes += meta.len();
                    list.files.push(File {
                        directory: number,
                        name: CString::new(entry.file_name().as_bytes())?,
                        size: meta.len(),
                        inode: meta.ino(),
                    });
                }
            }
            list.directories.push(directory);
        }
        Ok(list)
    }

    /// A file's whole path.
    pub fn path(&self, file: &File) -> PathBuf {
        let name: &CStr = &file.name;
        self.directories[file.directory].join(std::ffi::OsStr::from_bytes(name.to_bytes()))
    }
}
