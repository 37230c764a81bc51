//! An echo server on sockudo-ws and tokio, on one thread. It feeds messages and lets the
//! library send them before it waits for more, so those that were read together are sent
//! together. The library's documentation calls this the fastest way.

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use noria_peers::port;
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::{Config, Message, Result, WebSocketStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> Result<()> {
    sockudo_ws::init_clock();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    rt.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port())).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(tokio::task::unconstrained(echo(stream)));
        }
    })
}

async fn echo(stream: TcpStream) -> Result<()> {
    let mut ws = WebSocketStream::server(upgrade(stream).await?, Config::default());
    while let Some(message) = ws.next().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => ws.feed(message).await?,
            Message::Close(_) => break,
            _ => {} // it has answered already
        }
    }
    Ok(())
}

async fn upgrade(mut stream: TcpStream) -> Result<TcpStream> {
    let mut head = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(sockudo_ws::Error::ConnectionClosed);
        }
        if let Some((request, _)) = parse_request(&head)? {
            let response = build_response(&generate_accept_key(request.key), None, None);
            stream.write_all(&response).await?;
            return Ok(stream);
        }
    }
}
