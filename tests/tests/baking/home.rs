//! The directory that the manifest goes into is part of the image, whoever makes it.

use anyhow::{Result, ensure};
use driftmark_tests::sandbox::possible;

use crate::studio::Studio;

#[test]
fn what_bake_makes_in_the_image_is_no_drift() -> Result<()> {
    if !possible("an image that its manifest is put into") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(
        r#"furnish root; : > root/etc/fstab; rmdir root/usr/lib/driftmark; "$AGENT" keygen --output keys >/dev/null"#,
    )?;
    for root in ["root", "./root/"] {
        // Drift would end the shell.
        studio.shell(&format!(
            r#"rm -rf root/usr/lib/driftmark
            "$AGENT" bake --root {root} --name web --version 1 --rules none --key keys/driftmark.key --output "$WORK/root/usr/lib/driftmark" >/dev/null
            "$AGENT" check --root root --manifest root/usr/lib/driftmark/image.manifest --trust keys/driftmark.pub --state "$WORK/state""#
        ))?;
    }
    Ok(())
}

#[test]
fn a_bake_that_is_interrupted_takes_back_the_directory_that_it_made() -> Result<()> {
    if !possible("a bake into the image that is interrupted") {
        return Ok(());
    }
    let studio = Studio::new()?;
    let told = studio.shell(
        r#"furnish root; : > root/etc/fstab; rmdir root/usr/lib/driftmark; truncate -s 1T root/var/endless
        "$AGENT" bake --root root --name web --version 1 --rules none --output root/usr/lib/driftmark & pid=$!
        for n in $(seq 200); do [ -d root/usr/lib/driftmark ] && break; sleep 0.05; done
        ls root/usr/lib; kill -INT $pid; wait $pid || echo "code $?"; ls root/usr/lib"#,
    )?;
    let words: Vec<&str> = told.split_whitespace().collect();
    ensure!(
        words == ["driftmark", "os-release", "code", "130", "os-release"],
        "{told}"
    );
    Ok(())
}
