//! As much of HTTP as it takes to hand out one page. Nothing in here is about
//! heartbeats.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What the client asks for. Takes nothing from the stream.
pub async fn path(stream: &TcpStream) -> io::Result<String> {
    let mut begun = [0; 256];
    // A browser sends its request in one piece.
    let read = stream.peek(&mut begun).await?;
    let request = String::from_utf8_lossy(&begun[..read]);
    let mut words = request.split(' ');
    Ok(words.nth(1).unwrap_or_default().to_owned())
}

/// Answers whatever is asked with `page`.
pub async fn hand_out(mut stream: TcpStream, page: &str) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if request.len() > 16 * 1024 || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    // Not stored: a browser that keeps a page for the way back may keep its
    // socket open too.
    let response = format!(
        "HTTP/1.1 200 OK\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\
         \r\n\
         {page}",
        page.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
