//! The page, the metrics, and HTTP connections that become WebSockets.
//!
//! This module decides which clients may open a WebSocket: the page itself, and programs that
//! aren't browsers. Other modules handle its messages.

use std::net::IpAddr;

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
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{member, message::MAX_LENGTH, room::Room};

/// Nothing from elsewhere, and no script but ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

pub fn app(
    room: Room,
    metrics: PrometheusHandle,
) -> IntoMakeServiceWithConnectInfo<Router, TcpSocket> {
    let page = |content_type, text| get(move || async move { file(content_type, text) });
    Router::new()
        .route("/", page(HTML, include_str!("page/index.html")))
        .route("/style.css", page(CSS, include_str!("page/style.css")))
        .route("/chat.js", page(JAVASCRIPT, include_str!("page/chat.js")))
        .route(
            "/heartbeat.js",
            page(JAVASCRIPT, include_str!("../heartbeat-js/heartbeat.js")),
        )
        .route("/metrics", get(move || async move { metrics.render() }))
        .route("/socket", get(socket))
        .with_state(room)
        .into_make_service_with_connect_info()
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, text).into_response()
}

/// Answers the handshake. What follows is a member of the room.
async fn socket(
    State(room): State<Room>,
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
        let peer = member::page((ws, socket), room.config());
        member::serve(room, peer, true).await;
    })
}

/// Any page in the world can open a WebSocket to this machine, and the buttons
/// kill processes. So a browser has to come from our own page: its origin is the host that it
/// asks, and that host is no name that an attacker could point at us.
fn is_welcome(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let (Some(host), origin) = (text(HOST), text(ORIGIN)) else {
        return false;
    };
    match origin {
        None => !headers.contains_key(ORIGIN),
        Some(origin) => origin.strip_prefix("http://") == Some(host) && is_literal(host),
    }
}

fn is_literal(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}
