//! What is shipped, as it is installed: real packages on a real Debian with real systemd, from installation to purge.
#![forbid(unsafe_code)]

mod life;
