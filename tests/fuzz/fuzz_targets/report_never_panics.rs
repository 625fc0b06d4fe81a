//! What a peer sends: read or refused, held to its limits, written back the same.
#![no_main]

use drift::enrolment::{EnrolRequest, JoinToken, RenewRequest};
use drift::report::{Report, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(report) = serde_json::from_slice::<Report>(data) {
        let _ = report.check_limits();
        report.opened.iter().for_each(|open| {
            let _ = (open.drift.id(), open.drift.path.to_string());
        });
        let json = serde_json::to_vec(&report).expect("plain structs");
        assert_eq!(
            serde_json::from_slice::<Report>(&json).expect("written here"),
            report
        );
    }
    let _ = serde_json::from_slice::<Verdict>(data);
    let _ = serde_json::from_slice::<EnrolRequest>(data);
    let _ = serde_json::from_slice::<RenewRequest>(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = JoinToken::parse(text)
    {
        assert_eq!(JoinToken::parse(&token.to_text()), Ok(token));
    }
});
