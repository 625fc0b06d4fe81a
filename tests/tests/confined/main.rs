//! The shipped units, as systemd's own tools judge them.

mod units;
