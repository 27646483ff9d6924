//! The page, the metrics, and HTTP connections that become WebSockets.
//!
//! This module decides who may open a WebSocket: the page itself, and programs
//! that aren't browsers. What is said in it is decided elsewhere.

use std::{net::IpAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use heartbeat_examples::websocket::WebSocket;
use hyper::upgrade::OnUpgrade;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::{
    member::{self, PageSocket},
    message::MAX_LENGTH,
    room::Room,
    socket::Shared,
};

/// Nothing from elsewhere, and no script but ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

pub fn app(room: Room, metrics: PrometheusHandle) -> Router {
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
async fn socket(State(room): State<Room>, request: Request) -> Response {
    if !is_welcome(request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let opened = timeout(Duration::from_secs(10), open(upgraded)).await;
        if let Ok(Some(socket)) = opened {
            let peer = member::page(socket, room.config());
            member::serve(room, peer, true).await;
        }
    });
    response
}

async fn open(upgraded: OnUpgrade) -> Option<PageSocket> {
    // The TCP stream itself, so that the kernel can be asked about it.
    let parts = upgrade::downcast::<TokioIo<TcpStream>>(upgraded.await.ok()?).ok()?;
    let stream = parts.io.into_inner();
    let _ = stream.set_nodelay(true);
    let read: Bytes = parts.read_buf;
    Some(WebSocket::opened(Shared::new(stream), read, MAX_LENGTH).await)
}

/// Any page in the world can open a WebSocket to this machine, and the buttons
/// kill processes. So a browser has to come from our own page: from the host
/// that it asks, and that host is no name which somebody else could point at
/// us.
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
