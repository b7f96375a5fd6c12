//! From the head of the monolith's answer to what the client gets of it, and answers of our own.

use std::io::Write;

use crate::body::Body;
use crate::exchange::Exchange;
use crate::head::{self, Field, Kind};
use crate::request::{content_length, is_nominated};

/// What was read of the head of an answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body that follows; nothing behind 1xx.
    pub body: Body,
    /// The client gets its body in chunks.
    pub rechunk: bool,
    /// The monolith keeps the connection.
    pub keeps_alive: bool,
}

/// Reads a complete head, writes the client's to the end of `out`, and says what follows; nothing
/// for a head that is not well-formed. A client whose connection must end behind the answer has
/// `exchange.keep_alive` set to false.
pub fn read(
    head: &[u8],
    identity: &[u8],
    fields: &mut Vec<Field>,
    exchange: &mut Exchange,
    is_stopping: bool,
    out: &mut Vec<u8>,
) -> Option<Answer> {
    let line = head::status_line(head)?;
    head::fields(head, line.end, identity, fields).ok()?;
    let (mut length, mut chunked) = (None, false);
    let (mut closes, mut keeps) = (false, false);
    let mut nominated: Vec<&[u8]> = Vec::new();
    for field in fields.iter() {
        let value = field.value_in(head);
        match field.kind {
            Kind::ContentLength if length.is_some() => return None,
            Kind::ContentLength => length = Some(content_length(value)?),
            Kind::TransferEncoding if chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                return None;
            }
            Kind::TransferEncoding => chunked = true,
            Kind::Connection => {
                for token in head::tokens(value) {
                    closes |= token.eq_ignore_ascii_case(b"close");
                    keeps |= token.eq_ignore_ascii_case(b"keep-alive");
                    let is_option = [b"close".as_slice(), b"keep-alive", b"upgrade"]
                        .iter()
                        .any(|option| option.eq_ignore_ascii_case(token));
                    if !is_option && !head::is_protected(token) {
                        nominated.push(token);
                    }
                }
            }
            _ => {}
        }
    }
    if length.is_some() && chunked {
        return None;
    }
    let status = line.status;
    let is_bodiless = exchange.method == b"HEAD" || status < 200 || matches!(status, 204 | 304);
    let body = if is_bodiless {
        Body::Length(0)
    } else if chunked {
        Body::chunked()
    } else {
        length.map_or(Body::UntilClose, Body::Length)
    };
    if status >= 200 {
        let unframed = chunked && exchange.version_10 && !is_bodiless;
        let ends = is_stopping || exchange.may_lack_body();
        if matches!(body, Body::UntilClose) || unframed || ends {
            exchange.keep_alive = false;
        }
    }
    out.extend_from_slice(b"HTTP/1.1");
    out.extend_from_slice(&head[8..line.end]);
    for field in fields.iter() {
        let passes = match field.kind {
            Kind::Hop | Kind::Connection => false,
            Kind::Upgrade => exchange.upgrade,
            Kind::TransferEncoding => !exchange.version_10,
            _ => true,
        };
        if passes && !is_nominated(field.name_in(head), &nominated) {
            out.extend_from_slice(&head[field.start..field.end]);
        }
    }
    if status == 101 {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    } else if status >= 200 && !exchange.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if status >= 200 && exchange.version_10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let rechunk = chunked && !exchange.version_10 && !is_bodiless;
    let keeps_alive = if line.version_10 {
        keeps && !closes
    } else {
        !closes
    };
    Some(Answer {
        status,
        body,
        rechunk,
        keeps_alive,
    })
}

/// An answer of our own, as `bridge/proxy/plane/head.py` writes it. `fields` are whole lines.
pub fn write_own(exchange: &Exchange, status: u16, fields: &[u8], body: &[u8], out: &mut Vec<u8>) {
    // Writing to memory can't fail.
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status));
    out.extend_from_slice(fields);
    let _ = write!(
        out,
        "Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n",
        body.len()
    );
    if !exchange.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if exchange.version_10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if exchange.method != b"HEAD" {
        out.extend_from_slice(body);
    }
}

/// The body that Rails gives a status that it has nothing more to say of.
pub fn status_body(status: u16) -> Vec<u8> {
    format!("{{\"status\":{status},\"error\":\"{}\"}}", phrase(status)).into_bytes()
}

/// The reason phrase, as Python's `http.HTTPStatus` has it.
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}
