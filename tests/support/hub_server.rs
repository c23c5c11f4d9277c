//! A local HTTP server that plays the Hugging Face Hub: one model, others where they are needed, and faults on demand.
//!
//! It answers what the program asks of the real one: `GET /api/models/{repo}/revision/{revision}?blobs=true`, and
//! `HEAD` and `GET` (with `Range`) of `/{repo}/resolve/{revision}/{path}`. Large files redirect to `/cdn/...` with the
//! `X-Linked-*` headers, as the Hub's do. It can also answer as a mirror does (as olah 0.5.4 was seen to): names without
//! sizes, packed though nobody asked for that, and large files that come from the mirror itself.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

pub const REPO: &str = "tiny-lab/tiny-flux";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with a request.
#[derive(Clone)]
pub enum Fault {
    /// Another status, with further header lines.
    Status(u16, &'static str),
    /// A 200 with an error page as its body.
    Page,
    /// Another status, with these words as its body.
    Instead(u16, &'static str),
    /// The connection ends after this many bytes of the body.
    CutAfter(usize),
    /// The body is complete by its Content-Length, but this short.
    Short(usize),
    /// The byte at this place of the body is another one.
    Flip(usize),
    /// This many bytes of the body, and then nothing more.
    StallAfter(usize),
    /// `Range` is not heeded.
    WholeFile,
}

struct Planned {
    method: &'static str,
    path_part: &'static str,
    times: usize,
    fault: Fault,
}

struct RemoteFile {
    bytes: Vec<u8>,
    large: bool,
}

impl RemoteFile {
    fn sha256(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn etag(&self) -> String {
        // The first digits of a sha256 stand for git's blob id.
        if self.large { self.sha256() } else { self.sha256()[..40].to_owned() }
    }
}

type RemoteFiles = BTreeMap<String, RemoteFile>;

struct State {
    /// The files of each repository.
    repos: BTreeMap<String, RemoteFiles>,
    faults: Mutex<Vec<Planned>>,
    requests: Mutex<Vec<String>>,
    token: Option<String>,
    is_mirror: bool,
}

/// The server; it runs until the test's process ends.
pub struct HubServer {
    state: Arc<State>,
    pub endpoint: String,
}

/// What the server will hold, and the repository that files are added to.
pub struct HubServerBuilder(State, String);

impl Default for HubServerBuilder {
    fn default() -> Self {
        let repos = BTreeMap::from([(REPO.to_owned(), RemoteFiles::new())]);
        let (faults, requests) = (Mutex::default(), Mutex::default());
        Self(State { repos, faults, requests, token: None, is_mirror: false }, REPO.to_owned())
    }
}

impl HubServerBuilder {
    /// What follows is of this repository.
    pub fn repo(mut self, repo: &str) -> Self {
        self.1 = repo.to_owned();
        self
    }

    fn files(&mut self) -> &mut RemoteFiles {
        self.0.repos.entry(self.1.clone()).or_default()
    }

    /// A small file, kept in git.
    pub fn small(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files().insert(path.into(), RemoteFile { bytes: bytes.into(), large: false });
        self
    }

    /// A large file, which redirects.
    pub fn large(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files().insert(path.into(), RemoteFile { bytes: bytes.into(), large: true });
        self
    }

    /// The files of a folder of this disk, weights as large ones.
    pub fn folder(self, folder: &Path) -> Self {
        self.below(folder, "")
    }

    fn below(self, folder: &Path, prefix: &str) -> Self {
        fs::read_dir(folder).expect("a folder").flatten().fold(self, |server, entry| {
            let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
            if path.is_dir() {
                return server.below(&path, &format!("{name}/"));
            }
            let bytes = fs::read(&path).expect("a file");
            if name.ends_with(".safetensors") { server.large(&name, bytes) } else { server.small(&name, bytes) }
        })
    }

    /// All but this file.
    pub fn without(mut self, path: &str) -> Self {
        self.files().remove(path).expect("a file");
        self
    }

    /// Files come only to whoever shows this token.
    pub fn gated(mut self, token: &str) -> Self {
        self.0.token = Some(token.into());
        self
    }

    /// It answers as a mirror of the Hub.
    pub fn mirror(mut self) -> Self {
        self.0.is_mirror = true;
        self
    }

    pub fn start(self) -> HubServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(self.0);
        let (shared, base) = (Arc::clone(&state), endpoint.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, base) = (Arc::clone(&shared), base.clone());
                // A client that goes away is no concern of ours.
                thread::spawn(move || serve(&state, &base, stream).ok());
            }
        });
        HubServer { state, endpoint }
    }
}

impl HubServer {
    /// The next `times` requests of this method whose path contains `path_part` go wrong.
    pub fn fault(&self, method: &'static str, path_part: &'static str, times: usize, fault: Fault) {
        self.state.faults.lock().expect("faults").push(Planned { method, path_part, times, fault });
    }

    /// The requests so far, as `METHOD /path [range]`; they are forgotten.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.requests.lock().expect("requests"))
    }

    /// The name of a file's contents.
    pub fn etag(&self, path: &str) -> String {
        self.state.repos[REPO][path].etag()
    }
}

struct Request {
    method: String,
    path: String,
    start: Option<usize>,
    authorization: Option<String>,
}

fn serve(state: &State, base: &str, stream: TcpStream) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    let range = request.start.map(|start| format!(" {start}-")).unwrap_or_default();
    state.requests.lock().expect("requests").push(format!("{} {}{range}", request.method, request.path));
    let fault = take_fault(state, &request);
    if let Some(Fault::Status(status, headers)) = fault {
        return answer(stream, &request, &Head::new(status, headers), b"{\"error\":\"no\"}", None);
    }
    if let Some(Fault::Instead(status, words)) = fault {
        return answer(stream, &request, &Head::new(status, ""), words.as_bytes(), None);
    }
    let path = request.path.as_str();
    let below = |lead: &str| {
        state.repos.iter().find_map(|(repo, files)| Some((repo, files, path.strip_prefix(&format!("{lead}{repo}/"))?)))
    };
    if let Some((repo, files, rest)) = below("/api/models/")
        && let Some(rest) = rest.strip_prefix("revision/")
    {
        let listed = (repo.as_str(), files);
        return match rest {
            "main?blobs=true" | "refs%2Fpr%2F1?blobs=true" => list(state, listed, stream, &request, fault),
            _ if rest.starts_with(COMMIT) => list(state, listed, stream, &request, fault),
            _ => answer(stream, &request, &Head::new(404, "X-Error-Code: RevisionNotFound\r\n"), b"", None),
        };
    }
    if below("/api/models/").is_some_and(|(.., rest)| rest == "commits/main") {
        let body = serde_json::json!([{ "id": "f".repeat(40) }, { "id": COMMIT }]).to_string();
        return send(stream, &request, body.as_bytes(), "", fault);
    }
    if let Some(sha256) = path.strip_prefix("/cdn/") {
        let mut all = state.repos.values().flat_map(BTreeMap::values);
        let file = all.find(|file| file.large && file.sha256() == sha256);
        return match file {
            Some(file) => send(stream, &request, &file.bytes, "ETag: \"cdn\"\r\n", fault),
            None => answer(stream, &request, &Head::new(404, ""), b"", None),
        };
    }
    let resolved = below("/").and_then(|(_, files, rest)| {
        let path = rest.strip_prefix(&format!("resolve/{COMMIT}/"))?;
        Some(files.get(path))
    });
    match resolved {
        Some(file) => resolve(state, base, stream, &request, file, fault),
        None => {
            let head = Head::new(401, "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n");
            answer(stream, &request, &head, b"", None)
        }
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, start: None, authorization: None };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(request);
        }
        let (name, value) = header.trim().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value.strip_prefix("bytes=").and_then(|range| range.split('-').next()?.parse().ok());
                request.start = start;
            }
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
}

fn take_fault(state: &State, request: &Request) -> Option<Fault> {
    let mut faults = state.faults.lock().expect("faults");
    let planned =
        faults.iter_mut().find(|p| p.times > 0 && p.method == request.method && request.path.contains(p.path_part))?;
    planned.times -= 1;
    Some(planned.fault.clone())
}

fn list(
    state: &State,
    (repo, files): (&str, &RemoteFiles),
    stream: TcpStream,
    request: &Request,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let siblings: Vec<_> = files.iter().map(|(path, file)| sibling(state, path, file)).collect();
    let body = serde_json::json!({ "id": repo, "sha": COMMIT, "siblings": siblings }).to_string();
    if !state.is_mirror {
        return send(stream, request, body.as_bytes(), "Content-Type: application/json\r\n", fault);
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(body.as_bytes())?;
    send(stream, request, &packed.finish()?, "Content-Encoding: gzip\r\n", fault)
}

fn sibling(state: &State, path: &str, file: &RemoteFile) -> serde_json::Value {
    if state.is_mirror {
        return serde_json::json!({ "rfilename": path });
    }
    let mut value = serde_json::json!({
        "rfilename": path, "size": file.bytes.len(), "blobId": file.sha256()[..40],
    });
    if file.large {
        let lfs = serde_json::json!({ "sha256": file.sha256(), "size": file.bytes.len(), "pointerSize": 134 });
        value["lfs"] = lfs;
    }
    value
}

fn resolve(
    state: &State,
    base: &str,
    stream: TcpStream,
    request: &Request,
    file: Option<&RemoteFile>,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let allowed = state.token.as_ref().is_none_or(|token| request.authorization == Some(format!("Bearer {token}")));
    let Some(file) = file else {
        return answer(stream, request, &Head::new(404, "X-Error-Code: EntryNotFound\r\n"), b"", None);
    };
    if !allowed {
        let headers = "X-Error-Code: GatedRepo\r\nX-Error-Message: Access to this model is restricted\r\n";
        let status = if request.authorization.is_some() { 403 } else { 401 };
        return answer(stream, request, &Head::new(status, headers), b"", None);
    }
    let etag = file.etag();
    if !file.large || state.is_mirror {
        let headers = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
        return send(stream, request, &file.bytes, &headers, fault);
    }
    let headers = format!(
        "Location: {base}/cdn/{etag}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n",
        file.bytes.len()
    );
    answer(stream, request, &Head::new(302, &headers), b"", fault)
}

struct Head {
    status: u16,
    headers: String,
}

impl Head {
    fn new(status: u16, headers: &str) -> Self {
        Self { status, headers: headers.into() }
    }
}

/// Sends the part of a file that is asked for.
fn send(
    stream: TcpStream,
    request: &Request,
    bytes: &[u8],
    headers: &str,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let start = request.start.filter(|_| !matches!(fault, Some(Fault::WholeFile)));
    let mut headers = headers.to_owned();
    let status = if let Some(start) = start {
        write!(headers, "Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len()).expect("a header");
        206
    } else {
        200
    };
    answer(stream, request, &Head::new(status, &headers), &bytes[start.unwrap_or(0)..], fault)
}

/// Writes one answer, spoilt by `fault`, and ends the connection.
fn answer(
    mut stream: TcpStream,
    request: &Request,
    head: &Head,
    body: &[u8],
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let mut body = body.to_vec();
    match fault {
        Some(Fault::Short(bytes)) => body.truncate(bytes),
        Some(Fault::Flip(at)) => body[at] ^= 1,
        Some(Fault::Page) => body = b"<html>Sorry</html>".to_vec(),
        _ => {}
    }
    let length = body.len();
    let Head { status, headers } = head;
    write!(stream, "HTTP/1.1 {status} Some\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::CutAfter(bytes)) => stream.write_all(&body[..bytes]),
        Some(Fault::StallAfter(bytes)) => {
            stream.write_all(&body[..bytes])?;
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        _ => stream.write_all(&body),
    }
}
