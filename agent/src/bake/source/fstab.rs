//! An image's fstab in; its other local file systems out, with those that were asked for.

use std::path::PathBuf;

use drift::TreePath;

use crate::bake::BakeError;
use crate::bake::glance::Glance;

/// A file system of the image beside its root's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// What is mounted there, as the fstab spells it; empty if the fstab does not know.
    pub(super) source: String,
    /// Where.
    pub(super) point: TreePath,
    /// Its type, which may be `auto`.
    pub(super) kind: String,
    /// Its options.
    pub(super) options: Vec<String>,
}

/// The local file systems that an image's fstab mounts at boot, and those of `--filesystem`; by mount point.
pub(super) fn others(image: Glance<'_>, asked: &[PathBuf]) -> Result<Vec<Line>, BakeError> {
    let ignore_fstab = asked.iter().any(|path| path.as_os_str() == "none");
    let known = image.text("etc/fstab").map(|text| lines(&text));
    let known = known.unwrap_or_default();
    let mut others: Vec<Line> = known
        .iter()
        .filter(|line| !ignore_fstab && line.is_of_image())
        .cloned()
        .collect();
    for path in asked.iter().filter(|path| path.as_os_str() != "none") {
        let point = TreePath::new(path.as_os_str().as_encoded_bytes());
        let point = point.map_err(|error| BakeError::Read {
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        let line = known.iter().find(|line| line.point == point).cloned();
        others.push(line.unwrap_or(Line {
            source: String::new(),
            point,
            kind: "auto".to_owned(),
            options: Vec::new(),
        }));
    }
    others.retain(|line| !line.point.is_root());
    others.sort_by(|a, b| a.point.cmp(&b.point));
    others.dedup_by(|a, b| a.point == b.point);
    Ok(others)
}

impl Line {
    /// Whether it has a local block source and is mounted at boot.
    fn is_of_image(&self) -> bool {
        const LOCAL: [&str; 6] = ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID="];
        LOCAL.iter().any(|prefix| self.source.starts_with(prefix))
            && self.kind != "swap"
            && !self.has("noauto")
            && !self.has("nofail")
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }
}

/// The lines of a fstab that mount something at a path.
fn lines(text: &str) -> Vec<Line> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (source, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let options = fields.next().unwrap_or_default().split(',');
            Some(Line {
                source: source.to_owned(),
                point: TreePath::new(point.strip_prefix('/')?.as_bytes()).ok()?,
                kind: kind.to_owned(),
                options: options.map(str::to_owned).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_fstab_only_local_file_systems_count() {
        let text = "# comment\nUUID=1 / ext4 defaults 0 1\n/dev/sda1 /boot/efi vfat umask=0077 0 1\n\
                    nas:/home /home nfs defaults 0 0\n/dev/sda2 none swap sw 0 0\nLABEL=data /data xfs noauto 0 0\n";
        let points: Vec<String> = lines(text)
            .iter()
            .filter(|line| line.is_of_image())
            .map(|line| line.point.to_string())
            .collect();
        assert_eq!(points, ["/", "/boot/efi"]);
    }
}
