//! Receives the document that the routes make, hands on one that also says what a refusal looks like.
//!
//! Every route may refuse: no token, no role, no such thing, a body that makes no sense, no time. All refusals have one
//! form, so they are described in one place: as each operation's `default` response, and as the content of those that a
//! route names itself.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response};

/// What every refusal carries.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = Refusal)]
#[expect(
    dead_code,
    reason = "it describes `drift`'s own, which knows no OpenAPI"
)]
pub(super) struct Refused {
    /// A stable word, such as `not-found`.
    code: String,
    /// A sentence that says what to do.
    message: String,
}

/// Describes what the routes leave out.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(describe);
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        patch,
        ..
    } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn describe(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    responses.insert(
        "default".to_owned(),
        RefOr::T(Response::new("Refused: the code says why")),
    );
    for (status, response) in responses {
        let RefOr::T(response) = response else {
            continue;
        };
        let refused = !status.starts_with('2');
        if response.description.is_empty() {
            response.description = if refused {
                "Refused"
            } else {
                "What was asked for"
            }
            .to_owned();
        }
        if refused && response.content.is_empty() {
            let content = Content::new(Some(Ref::from_schema_name("Refusal")));
            response
                .content
                .insert("application/json".to_owned(), RefOr::T(content));
        }
    }
}
