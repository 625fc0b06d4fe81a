//! What is shipped, as it is installed: real packages on a real Debian with real systemd, from installation to purge
//! ([`life`]), what is in each of them ([`contents`]), and that they come out the same when they are made again ([`again`]).
#![forbid(unsafe_code)]

mod again;
mod contents;
mod life;
