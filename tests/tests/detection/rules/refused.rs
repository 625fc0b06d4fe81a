//! Rule files that are a mistake: refused at bake, with a message, and nothing is written.

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use super::rule;
use crate::ground::Ground;

#[test]
fn rules_that_are_a_mistake_are_refused_and_nothing_is_written() -> Result<()> {
    if !possible("rules that are a mistake") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/bin tree/opt tree/etc; touch tree/bin/{1..60} tree/opt/{1,2}; chmod 755 tree/bin/* tree/opt/*")?;
    let twice = rule("content", "/etc/x") + &rule("absent", "/etc/x");
    let within = rule("volatile", "/etc") + &rule("content", "/etc/x");
    let cases: &[(&str, String, &str)] = &[
        ("the same path twice", twice, "never counts"),
        ("below a volatile one", within, "never counts"),
        (
            "volatile everything",
            rule("volatile", "/**"),
            "allows everything",
        ),
        (
            "content everywhere",
            rule("content", "/**"),
            "allows everything",
        ),
        ("volatile root", rule("volatile", "/"), "allows everything"),
        ("empty", rule("volatile", ""), "path \"\""),
        ("relative", rule("volatile", "etc/x"), "etc/x"),
        ("upwards", rule("volatile", "/etc/../bin"), "/etc/../bin"),
        ("a dot", rule("volatile", "/etc/./x"), "/etc/./x"),
        ("a double slash", rule("volatile", "/etc//x"), "/etc//x"),
        ("unknown type", rule("ignore", "/etc/x"), "ignore"),
        (
            "unknown shape",
            "[[rule]]\ntype = \"shape\"\nshape = \"round\"\npath = \"/x\"\n".to_owned(),
            "round",
        ),
        (
            "shape without one",
            "[[rule]]\ntype = \"shape\"\npath = \"/x\"\n".to_owned(),
            "shape",
        ),
        (
            "unknown key",
            rule("content", "/etc/x") + "when = \"never\"\n",
            "when",
        ),
        (
            "unknown table",
            "[[rules]]\ntype = \"content\"\npath = \"/x\"\n".to_owned(),
            "rules",
        ),
        (
            "no path",
            "[[rule]]\ntype = \"content\"\n".to_owned(),
            "path",
        ),
        (
            "no paths",
            "[[rule]]\ntype = \"content\"\npaths = []\n".to_owned(),
            "empty",
        ),
        ("both", rule("content", "/x") + "paths = [\"/y\"]\n", "both"),
        (
            "a key twice",
            rule("content", "/x") + "path = \"/y\"\n",
            "duplicate",
        ),
        ("not TOML", "volatile /etc\n".to_owned(), "rules"),
        (
            "executables under volatile",
            rule("volatile", "/opt"),
            "executables",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text, message) in cases {
        std::fs::write(ground.outside("bad.toml"), text).context("write rules")?;
        let run = ground.bake("tree", "bad", &["--rules", &ground.text("bad.toml")])?;
        let nothing_written = !ground.outside("bad").exists();
        if run.code != 65 || !run.err.contains(message) || !nothing_written {
            wrong.push(format!(
                "{name}: {}, nothing written: {nothing_written}\n{}",
                run.code, run.err
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let missing = ground.bake("tree", "bad", &["--rules", &ground.text("missing.toml")])?;
    ensure!(
        missing.code == 66 && missing.err.contains("missing.toml"),
        "{missing:?}"
    );
    let unknown = ground.bake("tree", "bad", &[])?;
    ensure!(
        unknown.code == 65 && unknown.err.contains("--rules"),
        "an unknown distribution needs rules: {unknown:?}"
    );
    ensure!(!ground.outside("bad").exists(), "nothing is written");
    Ok(())
}
