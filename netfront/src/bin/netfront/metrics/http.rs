//! The smallest HTTP server that Prometheus is content with: one question, one answer, closed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::Subject;
use crate::failure::Failure;

/// How long a client may take, in all, to ask.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest question.
const LONGEST: usize = 8 << 10;

/// Answers at `address` from a thread of its own, for as long as the process lives. Returns the address as it is: of
/// port 0 the system makes one that is free.
pub fn serve(address: SocketAddr, subject: Arc<Subject>) -> Result<SocketAddr, Failure> {
    let what = format!("listening at {address} for Prometheus");
    let listener = TcpListener::bind(address).map_err(Failure::io(what.clone()))?;
    let bound = listener.local_addr().map_err(Failure::io(what))?;
    tracing::info!("metrics at http://{bound}/metrics");
    std::thread::Builder::new()
        .name("nfmetrics".into())
        .spawn(move || {
            for client in listener.incoming() {
                match client {
                    // A client that has gone, or asks nonsense, is its own problem.
                    Ok(client) => {
                        let _ = answer(client, &|| super::text(&subject.report()));
                    }
                    // Out of descriptors: not asked again at once, and for ever.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })
        .map_err(Failure::io("starting the thread for metrics"))?;
    Ok(bound)
}

fn answer(mut client: TcpStream, text: &dyn Fn() -> String) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    let question = question(&mut client)?;
    let (status, body) = match respond(&question) {
        "200 OK" => ("200 OK", text()),
        other => (other, format!("{other}: GET /metrics\n")),
    };
    write!(
        client,
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads to the empty line that ends the headers.
fn question(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut question = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || question.len() > LONGEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        let got = client.read(&mut bytes)?;
        question.extend_from_slice(&bytes[..got]);
        if got == 0 || question.windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(question);
        }
    }
}

/// The status line for a question.
fn respond(question: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(question);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split('?').next();
    match (method, path) {
        (Some("GET"), Some("/metrics" | "/")) => "200 OK",
        (Some("GET"), _) => "404 Not Found",
        _ => "405 Method Not Allowed",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn asked(question: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            answer(client, &|| "netfront_connected 1\n".into())
        });
        client.write_all(question).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        // A server that hangs up in the middle of a question resets the connection.
        let _ = client.read_to_string(&mut text);
        let _ = server.join().unwrap();
        text
    }

    #[test]
    fn metrics_are_given_to_whoever_gets_them() {
        let text = asked(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
        assert!(
            text.ends_with("Content-Length: 21\r\nConnection: close\r\n\r\nnetfront_connected 1\n")
        );
    }

    #[test]
    fn other_paths_and_methods_are_refused_and_nonsense_too() {
        assert!(asked(b"GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 404"));
        assert!(asked(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 405"));
        assert!(asked(&[0xff; 100]).starts_with("HTTP/1.0 405"));
        assert!(asked(b"").starts_with("HTTP/1.0 405"));
        assert_eq!(asked(&[b'x'; 20_000]), "");
    }
}
