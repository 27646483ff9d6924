//! The page, the metrics, and HTTP connections that become WebSockets.

use std::time::Duration;

use axum::{
    Router,
    extract::{
        ConnectInfo, State, connect_info::IntoMakeServiceWithConnectInfo, ws::WebSocketUpgrade,
    },
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use heartbeat_tokio::websocket::TcpSocket;
use metrics::{describe_counter, describe_gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{
    gateway::{self, Gateway},
    message::MAX_LENGTH,
};

/// Nothing from elsewhere, and no script but ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

pub fn app(
    gateway: Gateway,
    metrics: PrometheusHandle,
) -> IntoMakeServiceWithConnectInfo<Router, TcpSocket> {
    let page = |content_type, text| get(move || async move { file(content_type, text) });
    let script = include_str!("../heartbeat-js/heartbeat.js");
    Router::new()
        .route("/", page(HTML, include_str!("page/index.html")))
        .route("/style.css", page(CSS, include_str!("page/style.css")))
        .route("/fleet.js", page(JAVASCRIPT, include_str!("page/fleet.js")))
        .route("/heartbeat.js", page(JAVASCRIPT, script))
        .route("/metrics", get(async move || metrics.render()))
        .route("/socket", get(socket))
        .with_state(gateway)
        .into_make_service_with_connect_info()
}

/// What `/metrics` shows: of every heartbeat, and of the presence. Nothing listens.
pub fn metrics(detection_time: Duration) -> Result<PrometheusHandle, BuildError> {
    let limit = detection_time.as_secs_f64();
    let buckets = [0.01, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25].map(|part| part * limit);
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("heartbeat_".into()), &buckets)?
        .install_recorder()?;
    heartbeat_tokio::describe_metrics();
    describe_gauge!("presence_entries", "Entries of this gateway in the store.");
    describe_gauge!(
        "presence_lease",
        "1 while the lease is held, 0 before the first one and after an end."
    );
    describe_gauge!(
        "presence_ghosts",
        "Entries in the store that no gateway has."
    );
    describe_counter!(
        "presence_ghosts_total",
        "Entries in the store under this gateway that it doesn't have."
    );
    describe_counter!(
        "presence_late_refreshes_total",
        "Refreshes of the lease that came when another one was due already."
    );
    describe_counter!("presence_fenced_total", "How often the lease has ended.");
    describe_counter!(
        "presence_store_errors_total",
        "Epochs that an error has ended."
    );
    Ok(metrics)
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, text).into_response()
}

/// Answers the handshake. What follows is a client.
async fn socket(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    socket: ConnectInfo<TcpSocket>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_welcome(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if let Some(socket) = socket.get() {
        let _ = socket.set_nodelay(true);
    }
    let upgrade = upgrade
        .read_buffer_size(4096)
        .max_message_size(2 * MAX_LENGTH);
    upgrade.on_upgrade(async |ws| {
        let tasks = gateway.tasks.clone();
        let peer = gateway::page((ws, socket), gateway.config);
        tasks.spawn(gateway::serve(gateway, peer));
    })
}

/// Any page in the world can open a WebSocket to this machine. A browser has to come from
/// our own.
fn is_welcome(headers: &HeaderMap) -> bool {
    match (headers.get(HOST), headers.get(ORIGIN)) {
        (_, None) => true,
        (Some(host), Some(origin)) => {
            origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes())
        }
        (None, Some(_)) => false,
    }
}
