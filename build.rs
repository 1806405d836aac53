//! Compiles the protos without protoc, and keeps their comments for reflection.

#[path = "build/machine.rs"]
mod machine;

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    field_descriptor_proto::Type,
};

const PROTOS: [&str; 4] = [
    "proto/trunkline/v1/message.proto",
    "proto/trunkline/v1/topic.proto",
    "proto/trunkline/v1/producer.proto",
    "proto/trunkline/v1/consumer.proto",
];

const PACKAGE: &str = "trunkline.v1";

/// Fields that broker and client library keep as the bytes they are, as they read or write them by
/// themselves: the names in a publish request, so that none is copied, and the messages that a
/// consumer gets, so that those that many get are encoded once.
const RAW_FIELDS: [(&str, &str); 3] =
    [("PublishRequest", "topic"), ("PublishRequest", "producer_id"), ("ConsumeResponse", "batch")];

/// The map that the broker reads entry by entry, as bytes: an entry that is not UTF-8 is then
/// refused with its field, where decoding would fail the whole request and end its stream.
const RAW_MAP: (&str, &str) = ("NewMessage", "HeadersEntry");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    machine::look();
    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS)?
        .file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("trunkline.protoset"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors.clone())?;
    compile_raw(descriptors, out.join("raw"))
}

/// Compiles the services once more, with raw fields; all other messages are those of `crate::proto`.
fn compile_raw(mut descriptors: FileDescriptorSet, out: PathBuf) -> Result<(), Box<dyn Error>> {
    assert_publish_requests_are_alike(&descriptors);
    let mut config = tonic_prost_build::configure().bytes(".").btree_map(".").out_dir(&out);
    for file in descriptors.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        // It tells of no message in a map's place.
        file.source_code_info = None;
        for message in &mut file.message_type {
            if !make_raw(message) {
                let (name, path) = (message.name(), format!("crate::proto::{}", message.name()));
                config = config.extern_path(format!(".{PACKAGE}.{name}"), path);
            }
        }
        for value in &file.enum_type {
            let path = format!("crate::proto::{}", value.name());
            config = config.extern_path(format!(".{PACKAGE}.{}", value.name()), path);
        }
        let methods = file.service.iter_mut().flat_map(|service| &mut service.method);
        methods.for_each(share_publish_request);
    }
    fs::create_dir_all(&out)?;
    config.compile_fds(descriptors)?;
    Ok(())
}

/// Makes the fields raw that are to be; false if the message has none, nor holds one that has.
fn make_raw(message: &mut DescriptorProto) -> bool {
    let name = message.name().to_owned();
    let raw = |field: &&mut FieldDescriptorProto| RAW_FIELDS.contains(&(&name, field.name()));
    let mut fields = message.field.iter_mut().filter(raw).peekable();
    let some = fields.peek().is_some();
    fields.for_each(make_bytes);
    let mut entries = message.nested_type.iter_mut();
    let entry = entries.find(|entry| RAW_MAP == (&name, entry.name()));
    let publishes = message.field.iter().any(|field| field.type_name() == new_message());
    some | entry.map(make_entry_raw).is_some() | publishes
}

/// The message whose map is raw: who holds it holds the raw one.
fn new_message() -> String {
    format!(".{PACKAGE}.{}", RAW_MAP.0)
}

/// Makes a map's entries messages like any other, with bytes: on the wire they are the same.
fn make_entry_raw(entry: &mut DescriptorProto) {
    entry.options = None;
    entry.field.iter_mut().for_each(make_bytes);
}

/// On the wire strings, messages and bytes are the same.
fn make_bytes(field: &mut FieldDescriptorProto) {
    field.set_type(Type::Bytes);
    field.type_name = None;
}

fn assert_publish_requests_are_alike(descriptors: &FileDescriptorSet) {
    let fields = |name: &str| {
        let mut messages = descriptors.file.iter().flat_map(|file| &file.message_type);
        let message = messages.find(|message| message.name() == name);
        message.map(|message| (message.field.clone(), message.oneof_decl.clone()))
    };
    assert_eq!(
        fields("PublishRequest"),
        fields("PublishStreamRequest"),
        "both publishing calls must have the same request"
    );
}

/// The requests of both publishing calls have the same fields: the broker knows one of them.
fn share_publish_request(method: &mut MethodDescriptorProto) {
    if method.name() == "PublishStream" {
        method.input_type = Some(format!(".{PACKAGE}.PublishRequest"));
    }
}
