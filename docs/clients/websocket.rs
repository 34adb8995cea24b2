// The client's side of the WebSocket protocol, RFC 6455, as far as client.rs needs it: a program takes `tungstenite`.

use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// Why there is no connection: a status or close code, words, and the least time to wait in seconds.
pub type Ended = (u16, String, u64);
pub type Writer = Arc<Mutex<TcpStream>>;

pub fn broke(error: impl ToString) -> Ended {
    (1006, error.to_string(), 0)
}

pub fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A connection; the writer may be in several hands.
pub struct Link {
    reader: BufReader<TcpStream>,
    pub writer: Writer,
}

impl Link {
    /// Connects to an address, such as 127.0.0.1:8080.
    pub fn open(address: &str, path: &str, bearer: &str) -> Result<Link, Ended> {
        let stream = TcpStream::connect(address).map_err(broke)?;
        stream.set_nodelay(true).map_err(broke)?;
        let key = format!("{:016x}{:05x}A==", random(), random() & 0xfffff); // 16 bytes in base64
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        );
        (&stream).write_all(head.as_bytes()).map_err(broke)?;
        let mut reader = BufReader::new(stream.try_clone().map_err(broke)?);
        let (mut status, mut length, mut least) = (0, 0, 0);
        for number in 0.. {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(broke)?;
            let (name, value) = line.trim().split_once(if number == 0 { ' ' } else { ':' }).unwrap_or_default();
            match name.to_lowercase().as_str() {
                "" => break,
                "http/1.1" => status = value[..3].parse().unwrap_or(0),
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "retry-after" => least = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        if status != 101 {
            let mut words = vec![0; length];
            reader.read_exact(&mut words).map_err(broke)?;
            return Err((status, String::from_utf8_lossy(&words).into(), least));
        }
        Ok(Link { reader, writer: Arc::new(Mutex::new(stream)) })
    }

    fn take(&mut self, size: usize) -> Result<Vec<u8>, Ended> {
        let mut data = vec![0; size];
        self.reader.read_exact(&mut data).map_err(broke)?;
        Ok(data)
    }

    /// Reads the next message; frames are those of section 5.2.
    pub fn read(&mut self) -> Result<Vec<u8>, Ended> {
        let mut text = Vec::new();
        loop {
            let head = self.take(2)?;
            let wide = match head[1] { 126 => 2, 127 => 8, _ => 0 };
            let long = self.take(wide)?.iter().fold(0, |size, &byte| size << 8 | byte as usize);
            let data = self.take(if wide == 0 { head[1] as usize } else { long })?;
            match head[0] & 15 {
                8 => {
                    frame(&self.writer, 8, &data);
                    let code = if data.len() < 2 { 1005 } else { u16::from_be_bytes([data[0], data[1]]) };
                    return Err((code, String::from_utf8_lossy(data.get(2..).unwrap_or(b"")).into(), 0));
                }
                9 => frame(&self.writer, 10, &data),
                10 => {}
                _ => text.extend(data),
            }
            if head[0] & 15 < 8 && head[0] & 128 != 0 {
                return Ok(text);
            }
        }
    }
}

/// Sends a frame: 1 is a text.
pub fn frame(writer: &Writer, opcode: u8, data: &[u8]) {
    let mask = (random() as u32).to_be_bytes();
    let mut bytes = vec![128 | opcode];
    match data.len() {
        size if size < 126 => bytes.push(128 | size as u8),
        size if size < 65536 => bytes.extend([&[254][..], &(size as u16).to_be_bytes()].concat()),
        size => bytes.extend([&[255][..], &(size as u64).to_be_bytes()].concat()),
    }
    bytes.extend(mask);
    bytes.extend(data.iter().enumerate().map(|(place, byte)| byte ^ mask[place % 4]));
    let _ = writer.lock().unwrap().write_all(&bytes); // whoever reads finds out, too
}
