//! Receives what image builders write, as files, and what is wrong with others; holds the reading to both.

use std::path::PathBuf;

use ring::rand::SystemRandom;

use super::*;
use drift::key::SigningKey;

const AMI: (&str, &str, &str) = ("aws", "eu-west-1", "ami-0123456789abcdef0");
const OTHER_AMI: (&str, &str, &str) = ("aws", "us-east-1", "ami-0fedcba9876543210");
const GALLERY: &str = "/subscriptions/00000000-0000-0000-0000-00000000aaaa/resourceGroups/images/providers/\
                       Microsoft.Compute/galleries/company/images/web/versions/1.2.0";
const MANAGED: &str = "/subscriptions/00000000-0000-0000-0000-00000000aaaa/resourceGroups/images/providers/\
                       Microsoft.Compute/images/web-1.2";
const CONFIG: &str = "sha256:abababababababababababababababababababababababababababababababab";
const DIGEST: &str = "sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

fn subject() -> Subject {
    Subject {
        name: "web".into(),
        version: "1.2".into(),
        build: "amd64".into(),
        sha256: Sha256::of(b"manifest"),
        blake3: Blake3::of(b"manifest"),
    }
}

fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/artifacts")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// Platform, kind and id of all that is said.
fn ids(said: &Said) -> Vec<(String, String, String)> {
    let of = |statement: &Statement| {
        let Predicate::Artifact(artifact) = statement.predicate.clone() else {
            panic!("{statement:?}")
        };
        assert_eq!(statement.subject.digest.sha256, subject().sha256);
        let platform = artifact.platform.to_string();
        artifact
            .ids
            .into_iter()
            .map(move |(kind, id)| (platform.clone(), kind.to_string(), id.to_string()))
    };
    said.statements.iter().flat_map(of).collect()
}

#[test]
fn what_image_builders_write_is_recognised_by_its_content() {
    let by_account = |region: &'static str, id: &'static str| ("aws", region, id);
    type Case<'a> = (&'a str, Format, Vec<(&'a str, &'a str, &'a str)>);
    let cases: [Case<'_>; 13] = [
        (
            "packer-amazon-and-azure.json",
            Format::Packer,
            vec![AMI, OTHER_AMI, ("azure", "image", MANAGED)],
        ),
        (
            "packer-google.json",
            Format::Packer,
            vec![("gcp", "image", "web-1-2")],
        ),
        (
            "packer-qemu.json",
            Format::Packer,
            vec![(
                "qemu",
                "disk",
                "11111111-1111-4111-8111-111111111111/output-web/web.qcow2",
            )],
        ),
        (
            "packer-docker.json",
            Format::Packer,
            vec![("docker", "config", CONFIG)],
        ),
        (
            "azure-show-runs.json",
            Format::AzureImageBuilder,
            vec![
                ("azure", "web-gallery", GALLERY),
                (
                    "azure",
                    "web-vhd",
                    "https://store.blob.core.windows.net/vhds/web.vhd",
                ),
            ],
        ),
        (
            "azure-rest.json",
            Format::AzureImageBuilder,
            vec![("azure", "web-gallery", GALLERY)],
        ),
        (
            "ec2-get-image.json",
            Format::Ec2ImageBuilder,
            vec![AMI, OTHER_AMI],
        ),
        (
            "ec2-two-accounts.json",
            Format::Ec2ImageBuilder,
            vec![
                by_account("eu-west-1:123456789012", AMI.2),
                by_account("eu-west-1:210987654321", OTHER_AMI.2),
            ],
        ),
        (
            "mkosi.json",
            Format::Mkosi,
            vec![("mkosi", "image", "web_1.2_x86-64")],
        ),
        (
            "docker.iid",
            Format::Docker,
            vec![("docker", "config", CONFIG)],
        ),
        (
            "docker-metadata.json",
            Format::Docker,
            vec![("docker", "config", CONFIG), ("docker", "digest", DIGEST)],
        ),
        (
            "docker-inspect.json",
            Format::Docker,
            vec![("docker", "config", CONFIG), ("docker", "digest", DIGEST)],
        ),
        (
            "own.json",
            Format::Own,
            vec![(
                "openstack",
                "region-one",
                "0f1e2d3c-1111-4222-8333-444455556666",
            )],
        ),
    ];
    for (name, format, expected) in cases {
        let said = read(&sample(name), &subject(), &[]).unwrap_or_else(|error| {
            panic!("{name}: {error}");
        });
        assert_eq!(said.format, format, "{name}");
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(platform, kind, id)| (platform.to_owned(), kind.to_owned(), id.to_owned()))
            .collect();
        assert_eq!(ids(&said), expected, "{name}");
        assert!(said.signers.is_empty() && said.envelope.is_none(), "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let cases = [
        ("a-number.json", "no image builder"),
        ("an-empty-list.json", "no image builder"),
        ("azure-of-something-else.json", "resource id of an image"),
        ("azure-that-failed.json", "its state is `Failed`"),
        ("azure-with-a-hole.json", "resource id of an image"),
        ("docker-container.json", "an image's digest"),
        ("docker-short.iid", "an image's digest"),
        ("docker-two-images.json", "says `2 images`"),
        ("ec2-not-yet.json", "`DISTRIBUTING`, not `AVAILABLE`"),
        ("ec2-with-an-escape.json", "an AMI"),
        ("ec2-without-amis.json", "names no artifact"),
        ("empty.json", "no image builder"),
        ("mkosi-of-later.json", "manifest_version 1 or 2"),
        ("mkosi-without-a-version.json", "a name with a version"),
        ("not-json.json", "no image builder"),
        ("own-with-a-bad-kind.json", "letters, digits"),
        ("own-with-a-space.json", "printable ASCII"),
        ("own-with-an-unknown-field.json", "unknown field `id`"),
        ("own-with-nothing.json", "names no artifact"),
        ("own-with-too-many.json", "more than 256 ids"),
        (
            "packer-of-an-unknown-builder.json",
            "builder type `vsphere-iso`",
        ),
        (
            "packer-of-another-build.json",
            "expected amd64, found arm64",
        ),
        ("packer-of-another-manifest.json", "manifest in Packer's"),
        ("packer-of-another-name.json", "expected web, found db\\"),
        ("packer-of-another-version.json", "expected 1.2, found 1.3"),
        ("packer-with-a-misspelt-key.json", "`driftmark.verison`"),
        ("packer-with-a-volume.json", "an AMI"),
        (
            "packer-with-two-in-one-region.json",
            "two ids for eu-west-1",
        ),
        ("packer-with-two-runs-said.json", "duplicate field"),
        ("packer-without-files.json", "names no artifact"),
        (
            "packer-without-its-last-run.json",
            "no build is of that run",
        ),
        ("something-else.json", "no image builder"),
    ];
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/artifacts/refused");
    assert_eq!(
        std::fs::read_dir(folder).unwrap().count(),
        cases.len(),
        "each file of the folder is tried"
    );
    for (name, expected) in cases {
        let refused = read(&sample(&format!("refused/{name}")), &subject(), &[]).unwrap_err();
        let message = refused.to_string();
        assert!(message.contains(expected), "{name}: {message}");
        assert!(
            message.len() < 1_000 && !message.contains('\x1b'),
            "{name}: {message}"
        );
    }
    let endless = vec![b' '; MAX_BYTES + 1];
    assert!(matches!(
        read(&endless, &subject(), &[]),
        Err(ArtifactError::TooLong)
    ));
}

#[test]
fn a_signed_statement_counts_by_a_trusted_key_and_about_this_manifest_alone() {
    let random = SystemRandom::new();
    let (key, stranger) = (
        SigningKey::generate(&random).unwrap().0,
        SigningKey::generate(&random).unwrap().0,
    );
    let own: Artifact = serde_json::from_slice(&sample("own.json")).unwrap();
    let sign = |statement: &Statement, key: &SigningKey| {
        Envelope::sign(statement.to_json(), key, &random)
            .unwrap()
            .to_json()
    };
    let trusted = [key.public().clone()];
    let good = stated(own.clone(), &subject());
    let said = read(&sign(&good, &key), &subject(), &trusted).unwrap();
    assert_eq!(said.format, Format::Signed);
    assert_eq!(said.signers, [key.public().id().to_string()]);
    assert_eq!(ids(&said).len(), 1);

    let refused = |bytes: &[u8]| read(bytes, &subject(), &trusted).unwrap_err();
    assert!(matches!(
        refused(&sign(&good, &stranger)),
        ArtifactError::Signature(SignatureError::Untrusted)
    ));
    let other = Subject {
        sha256: Sha256::of(b"other"),
        ..subject()
    };
    assert!(matches!(
        refused(&sign(&stated(own.clone(), &other), &key)),
        ArtifactError::DoesNotFit { .. }
    ));
    let other = Subject {
        blake3: Blake3::of(b"other"),
        ..subject()
    };
    assert!(matches!(
        refused(&sign(&stated(own, &other), &key)),
        ArtifactError::DoesNotFit { .. }
    ));
    let provenance = serde_json::from_str(r#"{"name": "web", "version": "1.2"}"#).unwrap();
    let manifest = Statement {
        predicate: Predicate::Manifest(provenance),
        ..good
    };
    assert!(matches!(
        refused(&sign(&manifest, &key)),
        ArtifactError::OtherStatement
    ));
}

proptest::proptest! {
    #[test]
    fn whatever_bytes_come_nothing_breaks(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2_000)) {
        let _ = read(&bytes, &subject(), &[]);
    }

    #[test]
    fn a_sample_with_a_changed_byte_is_read_or_refused_and_every_id_is_printable(
        which in 0_usize..6, at in proptest::prelude::any::<proptest::sample::Index>(), byte in proptest::prelude::any::<u8>(),
    ) {
        let names = ["packer-amazon-and-azure.json", "azure-show-runs.json", "ec2-get-image.json", "mkosi.json",
                     "docker-inspect.json", "own.json"];
        let mut bytes = sample(names[which]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(said) = read(&bytes, &subject(), &[]) {
            for (_, _, id) in ids(&said) {
                proptest::prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
            }
        }
    }
}
