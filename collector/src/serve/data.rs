//! Receives a configuration, hands on a data directory that is ours alone, and says where things are.

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::ServeError;
use crate::authority::files;
use crate::config::Config;
use crate::store::Store;

/// Makes the directory if need be.
pub(super) fn make(data: &Path) -> Result<(), ServeError> {
    let mut directory = DirBuilder::new();
    directory.recursive(true).mode(0o700);
    directory.create(data).map_err(|source| ServeError::Data {
        path: data.to_owned(),
        source,
    })
}

/// Makes the directory if need be, refuses one that others may use, and locks it.
pub(super) fn prepare(data: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::Data {
        path: data.to_owned(),
        source,
    };
    make(data)?;
    let metadata = std::fs::metadata(data).map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(ServeError::DataNotPrivate(data.to_owned()));
    }
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(data.join("collector.lock"))
        .map_err(failed)?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::InUse(data.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Opens the database; nobody else may read it.
pub(super) fn open_store(data: &Path) -> Result<Store, ServeError> {
    let path = database(data);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| ServeError::Data {
            path: data.to_owned(),
            source,
        })?;
    Ok(Store::open(&path)?)
}

fn database(data: &Path) -> PathBuf {
    data.join("collector.db")
}

/// Every name and address that somebody may use for this collector.
pub(super) fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(ToOwned::to_owned)
        .to_vec();
    for address in [config.agents, config.operators] {
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
    }
    names.extend(host_name());
    names.extend(config.advertise.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// This machine's name, if it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_str()
        .ok()?
        .to_ascii_lowercase();
    rustls_pki_types::DnsName::try_from(name.as_str())
        .is_ok()
        .then_some(name)
}

/// How others reach `address`: by the first advertised name, else by itself, else by this machine's name.
pub(super) fn url(config: &Config, address: SocketAddr) -> String {
    let host = match config.advertise.first() {
        Some(name) => name.clone(),
        None if address.ip().is_unspecified() => {
            host_name().unwrap_or_else(|| "localhost".to_owned())
        }
        None => address.ip().to_string(),
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    format!("https://{host}:{}", address.port())
}

/// Leaves the operators' address where this machine's commands find it.
pub(super) fn leave_address(config: &Config) -> Result<(), ServeError> {
    let address = config.operators;
    let local = match address.ip() {
        ip if !ip.is_unspecified() => address,
        ip if ip.is_ipv4() => SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), address.port()),
        _ => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
    };
    files::write_whole(
        &config.data.join("operators.url"),
        format!("https://{local}\n").as_bytes(),
        0o600,
    )
    .map_err(|source| ServeError::Data {
        path: config.data.clone(),
        source,
    })
}

/// What an operator needs to know when it starts.
pub(super) fn announce(config: &Config, first_token: Option<PathBuf>) -> Vec<String> {
    let mut lines = vec![
        format!("agents     {}", url(config, config.agents)),
        format!("operators  {}", url(config, config.operators)),
        format!("data       {}", config.data.display()),
        format!("CA         {}", config.data.join("ca.pem").display()),
        format!("fleets     {}", config.fleets.display()),
    ];
    if let Some(path) = first_token {
        lines.push(format!(
            "token      {} (an admin's: keep it, or make others and revoke it)",
            path.display()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_data_directory_is_private_and_has_one_collector() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("a/b");
        let lock = prepare(&data).unwrap();
        assert_eq!(
            std::fs::metadata(&data).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(matches!(prepare(&data), Err(ServeError::InUse(_))));
        drop(lock);
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(prepare(&data), Err(ServeError::DataNotPrivate(_))));
    }

    #[test]
    fn urls_say_how_others_reach_us() {
        let mut config = Config::of("/data".into());
        assert_eq!(url(&config, config.agents), "https://127.0.0.1:8443");
        assert_eq!(url(&config, "[::1]:1".parse().unwrap()), "https://[::1]:1");
        config.advertise = vec!["collector.example".into()];
        assert_eq!(
            url(&config, config.agents),
            "https://collector.example:8443"
        );
    }
}
