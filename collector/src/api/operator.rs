//! Receives a bearer token, hands on who the operator is and what they may do.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use super::ApiError;
use super::refusal::Asker;
use crate::serve::App;
use crate::store::{self, StoreError};

/// What an operator may do; each includes those before it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// See.
    Viewer,
    /// Make join tokens, hold and release instances.
    Operator,
    /// Approve and cancel orders, retire instances.
    Approver,
    /// Register images and keys, make operator tokens.
    Admin,
}

impl Role {
    /// The word for it in JSON and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Approver => "approver",
            Role::Admin => "admin",
        }
    }

    /// The reverse of [`Role::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Role::Viewer, Role::Operator, Role::Approver, Role::Admin]
            .into_iter()
            .find(|role| role.word() == word)
    }
}

/// Who makes this request: an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The name of the token.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The fleets it may do it to; none for all of them, and for what concerns no fleet.
    pub fleets: Option<Vec<String>>,
}

impl Operator {
    /// Whether rows of this fleet are for this operator to see.
    pub fn sees(&self, fleet: &str) -> bool {
        self.fleets
            .as_ref()
            .is_none_or(|fleets| fleets.iter().any(|own| own == fleet))
    }

    /// Refuses unless the operator has `role` over `fleet`. Ask this before anything about the fleet is said.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, role: Role, fleet: &str) -> Result<(), ApiError> {
        self.require_role(role)?;
        if self.sees(fleet) {
            Ok(())
        } else {
            Err(ApiError::forbidden(
                "fleet",
                "this token is not for that fleet",
            ))
        }
    }

    /// Refuses unless the operator has `role` over every fleet: for images, keys and operators, which belong to none.
    ///
    /// # Errors
    /// 403.
    pub fn require_everywhere(&self, role: Role) -> Result<(), ApiError> {
        self.require_role(role)?;
        match self.fleets {
            None => Ok(()),
            Some(_) => Err(ApiError::forbidden(
                "fleet",
                "this needs a token for all fleets",
            )),
        }
    }

    /// Refuses unless the operator has `role` over any fleet.
    ///
    /// # Errors
    /// 403.
    pub fn require_role(&self, role: Role) -> Result<(), ApiError> {
        if self.role >= role {
            Ok(())
        } else {
            Err(ApiError::forbidden(
                "role",
                format!(
                    "this needs the role {}, and this token has {}",
                    role.word(),
                    self.role.word()
                ),
            ))
        }
    }
}

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let secret = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|secret| secret.len() <= MAX_SECRET_BYTES)
            .ok_or_else(|| {
                ApiError::unauthenticated("send an operator token as `Authorization: Bearer TOKEN`")
            })?;
        let digest = blake3::hash(secret.as_bytes());
        let found: Result<_, StoreError> = app
            .store
            .read(move |connection| Ok(store::operators::by_digest(connection, &digest)?))
            .await;
        let operator = found?.ok_or_else(|| {
            ApiError::unauthenticated("this operator token is not known or revoked")
        })?;
        if let Some(asker) = parts.extensions.get::<Asker>() {
            let _ = asker.0.set(operator.name.clone());
        }
        Ok(operator)
    }
}

/// Longer than any token that we make.
const MAX_SECRET_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(role: Role, fleets: Option<&[&str]>) -> Operator {
        let fleets = fleets.map(|fleets| fleets.iter().map(ToString::to_string).collect());
        Operator {
            name: "test".into(),
            role,
            fleets,
        }
    }

    #[test]
    fn a_role_includes_those_before_it_and_no_more() {
        let approver = operator(Role::Approver, None);
        assert!(approver.require(Role::Viewer, "web").is_ok());
        assert!(approver.require(Role::Approver, "web").is_ok());
        assert!(approver.require(Role::Admin, "web").is_err());
    }

    #[test]
    fn a_token_for_one_fleet_is_for_no_other_and_for_nothing_that_has_none() {
        let web = operator(Role::Admin, Some(&["web"]));
        assert!(web.require(Role::Admin, "web").is_ok());
        assert!(web.require(Role::Viewer, "db").is_err());
        assert!(web.require_everywhere(Role::Viewer).is_err());
    }

    #[test]
    fn no_fleets_named_is_not_the_same_as_an_empty_list() {
        assert!(!operator(Role::Admin, Some(&[])).sees("web"));
        assert!(operator(Role::Viewer, None).sees("web"));
    }
}
