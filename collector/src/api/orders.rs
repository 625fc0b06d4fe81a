//! Orders for operators: what is to be replaced, approving, cancelling, and naming the replacement.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use rusqlite::Transaction;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::keys::Reason;
use super::{ApiError, Operator, Role};
use crate::clock::now_ms;
use crate::replace::operator::{self as decide, Afterwards, OrderError};
use crate::serve::App;
use crate::store::StoreError;
use crate::store::orders::{self, Filter, OrderRow};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(approve))
        .routes(routes!(cancel))
        .routes(routes!(replacement))
}

/// Which orders to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only orders of this fleet.
    fleet: Option<String>,
    /// Also those that are verified or cancelled.
    #[serde(default)]
    all: bool,
    /// How many, at most 10,000.
    limit: Option<u32>,
}

/// How an order is cancelled.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// A sentence, for the ledger.
    pub reason: String,
    /// Whether another order may be planned for the instance at once; else none is until it was clean.
    #[serde(default)]
    pub again: bool,
}

/// The machine that replaces.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its cloud id.
    #[serde(alias = "cloud-id")]
    pub cloud_id: String,
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Unknown(id) => {
                ApiError::not_found(format_args!("order {}", drift::escape(id.as_bytes())))
            }
            OrderError::State { .. } => ApiError::conflict("order-state", error.to_string()),
            OrderError::Replacement { .. } => {
                ApiError::conflict("bad-replacement", error.to_string())
            }
            OrderError::Statement(error) => error.into(),
            OrderError::Store(error) => error.into(),
        }
    }
}

/// Orders, newest first: those that are not over.
#[utoipa::path(get, path = "/v1/orders", tag = "orders", params(ListQuery),
    responses((status = 200, body = Vec<OrderRow>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<OrderRow>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    if let Some(fleet) = &query.fleet {
        operator.require(Role::Viewer, fleet)?;
    }
    let fleets = query.fleet.map(|fleet| vec![fleet]).or(operator.fleets);
    let filter = Filter {
        fleets,
        over: query.all,
        limit: query.limit,
    };
    Ok(Json(
        app.store
            .read(move |db| Ok::<_, StoreError>(orders::orders(db, &filter)?))
            .await?,
    ))
}

/// One order.
#[utoipa::path(get, path = "/v1/orders/{id}", tag = "orders", params(("id" = String, Path, description = "its id")),
    responses((status = 200, body = OrderRow), (status = 404)))]
async fn show(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Json<OrderRow>, ApiError> {
    operator.require_role(Role::Viewer)?;
    Ok(Json(
        app.store
            .read(move |db| found(db, &operator, Role::Viewer, &id))
            .await
            .map_err(Refused::into_error)?,
    ))
}

/// Lets an order go. The breakers still hold: it executes when none stops it.
#[utoipa::path(post, path = "/v1/orders/{id}/approve", tag = "orders", request_body = Reason,
    params(("id" = String, Path, description = "its id")),
    responses((status = 200, body = OrderRow), (status = 404), (status = 409, description = "it does not wait for it")))]
async fn approve(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(reason): Json<Reason>,
) -> Result<Json<OrderRow>, ApiError> {
    let reason = reason.checked()?;
    change(&app, operator, Role::Approver, id, move |tx, order, by| {
        decide::approve(tx, order, by, &reason, now_ms())
    })
    .await
}

/// Ends an order that waits, or resolves one that failed and frees its slot.
#[utoipa::path(post, path = "/v1/orders/{id}/cancel", tag = "orders", request_body = Cancel,
    params(("id" = String, Path, description = "its id")),
    responses((status = 200, body = OrderRow), (status = 404), (status = 409, description = "it is executing, or over")))]
async fn cancel(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(cancel): Json<Cancel>,
) -> Result<Json<OrderRow>, ApiError> {
    let afterwards = if cancel.again {
        Afterwards::PlanAgain
    } else {
        Afterwards::LeaveAlone
    };
    let reason = Reason {
        reason: cancel.reason,
    }
    .checked()?;
    change(&app, operator, Role::Approver, id, move |tx, order, by| {
        decide::cancel(tx, order, afterwards, by, &reason, now_ms())
    })
    .await
}

/// Names the machine that replaces the instance of an executing order: for the replacer `probe`, where the autoscaler
/// chooses it. The order is verified by exactly that machine, enrolled with proof since, on the order's image, and clean.
#[utoipa::path(put, path = "/v1/orders/{id}/replacement", tag = "orders", request_body = Named,
    params(("id" = String, Path, description = "its id")),
    responses((status = 200, body = OrderRow), (status = 404),
        (status = 409, description = "it is not executing, or that machine cannot replace")))]
async fn replacement(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(named): Json<Named>,
) -> Result<Json<OrderRow>, ApiError> {
    change(&app, operator, Role::Operator, id, move |tx, order, by| {
        decide::name_replacement(tx, order, &named.cloud_id, by, now_ms())
    })
    .await
}

/// Changes an order that the operator may change, and answers what became of it.
async fn change(
    app: &App,
    operator: Operator,
    role: Role,
    id: String,
    change: impl FnOnce(&Transaction<'_>, &OrderRow, &str) -> Result<(), OrderError> + Send + 'static,
) -> Result<Json<OrderRow>, ApiError> {
    let changed = app.store.write(move |tx| {
        let order = found(tx, &operator, role, &id)?;
        change(tx, &order, &operator.name)?;
        found(tx, &operator, Role::Viewer, &id)
    });
    let changed = changed.await.map_err(Refused::into_error)?;
    app.wake.notify_one();
    Ok(Json(changed))
}

/// The order, if the operator has the role over its fleet. Another fleet's order is not there at all.
fn found(
    db: &rusqlite::Connection,
    operator: &Operator,
    role: Role,
    id: &str,
) -> Result<OrderRow, Refused> {
    let order = orders::order(db, id)?.filter(|order| operator.sees(&order.fleet));
    let order = order.ok_or_else(|| OrderError::Unknown(id.chars().take(64).collect()))?;
    operator
        .require(role, &order.fleet)
        .map_err(Refused::Forbidden)?;
    Ok(order)
}

/// Either kind of refusal, inside a transaction.
#[derive(Debug)]
enum Refused {
    Forbidden(ApiError),
    Order(OrderError),
}

impl Refused {
    fn into_error(self) -> ApiError {
        match self {
            Refused::Forbidden(error) => error,
            Refused::Order(error) => error.into(),
        }
    }
}

impl<E: Into<OrderError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused::Order(error.into())
    }
}
