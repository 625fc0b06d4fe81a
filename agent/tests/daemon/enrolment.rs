//! Enrolment against a real TLS server: who is taken for the collector, and what is kept of its answer.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::loopback::{Loopback, Server};
use drift::enrolment::Refusal;
use driftmark_agent::enrol::{EnrolError, EnrollArguments, enroll};
use driftmark_agent::identity::Store;
use hyper::StatusCode;

fn arguments(home: &Path, token: &str) -> EnrollArguments {
    let token_file = home.join("token");
    std::fs::write(&token_file, format!("{token}\n")).unwrap();
    EnrollArguments {
        token_file,
        state_directory: home.join("state"),
        ..EnrollArguments::default()
    }
}

#[test]
fn an_instance_enrols_once_and_keeps_its_identity_for_itself() {
    let collector = Loopback::start();
    let home = tempfile::tempdir().unwrap();
    let arguments = EnrollArguments {
        cloud_id: Some("vm-7".into()),
        ..arguments(home.path(), &collector.token())
    };
    let enrolled = enroll(&arguments).unwrap();
    assert_eq!(
        (enrolled.instance.as_str(), enrolled.fleet.as_str()),
        ("i-00000000000000000000000000000001", "web")
    );
    let world = collector.world.lock().unwrap();
    assert_eq!(world.enrol_requests[0].token, "a secret");
    assert_eq!(world.enrol_requests[0].cloud_id.as_deref(), Some("vm-7"));
    assert_eq!(world.protocols, [hyper::Version::HTTP_11]);
    drop(world);
    for file in std::fs::read_dir(home.path().join("state/identity")).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let again = enroll(&arguments).unwrap_err();
    assert!(
        again.to_string().starts_with("already enrolled as i-"),
        "{again}"
    );
    assert_eq!(collector.world.lock().unwrap().enrol_requests.len(), 1);
    let loaded = Store::open(&arguments.state_directory)
        .unwrap()
        .load()
        .unwrap()
        .unwrap();
    assert_eq!(loaded.certificates.chain, enrolled.certificates.chain);
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_key_and_token() {
    let collector = Loopback::start();
    collector.world.lock().unwrap().lose_answers = 1;
    let home = tempfile::tempdir().unwrap();
    enroll(&arguments(home.path(), &collector.token())).unwrap();
    let world = collector.world.lock().unwrap();
    assert!(world.enrol_requests.len() >= 2);
    assert_eq!(world.enrol_requests[0].csr, world.enrol_requests[1].csr);
}

#[test]
fn whoever_is_not_the_collector_of_the_token_learns_nothing() {
    let other = Loopback::start();
    for server in [Server::OtherName, Server::Expired, Server::OfAnotherCa] {
        let collector = Loopback::start_as(server);
        let home = tempfile::tempdir().unwrap();
        let error = enroll(&arguments(home.path(), &collector.token())).unwrap_err();
        let is_right = match server {
            // It may be the one, and our clock the wrong one.
            Server::Expired => error.to_string().contains("by this machine's clock"),
            _ => matches!(error, EnrolError::Impostor { .. }),
        };
        assert!(is_right, "{error:?}");
        assert!(
            collector.world.lock().unwrap().enrol_requests.is_empty(),
            "the secret was sent"
        );
    }
    let collector = Loopback::start();
    let home = tempfile::tempdir().unwrap();
    let url = format!("https://{}", other.address);
    let arguments = EnrollArguments {
        collector: Some(url),
        ..arguments(home.path(), &collector.token())
    };
    assert!(matches!(
        enroll(&arguments).unwrap_err(),
        EnrolError::Impostor { .. }
    ));
}

#[test]
fn a_refusal_is_final_and_says_why() {
    let collector = Loopback::start();
    let refusal = Refusal {
        code: "token-used".into(),
        message: "make another\u{1b}[31m token".into(),
    };
    collector.world.lock().unwrap().refuse = Some((StatusCode::FORBIDDEN, refusal));
    let home = tempfile::tempdir().unwrap();
    let error = enroll(&arguments(home.path(), &collector.token())).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`token-used`: make another\\x1b[31m token"),
        "{error}"
    );
}

#[test]
fn what_is_no_token_is_refused_before_anything_is_made() {
    let home = tempfile::tempdir().unwrap();
    let arguments = arguments(home.path(), "dmjt1.not-a-token");
    assert!(matches!(
        enroll(&arguments).unwrap_err(),
        EnrolError::Token { .. }
    ));
    assert!(!home.path().join("state/identity/instance.key").exists());
}
