//! Compiles the protos without protoc, and keeps their comments for reflection.

#[path = "build/machine.rs"]
mod machine;

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    field_descriptor_proto::Type,
};

const PROTOS: [&str; 7] = [
    "proto/trunkline/v1/access.proto",
    "proto/trunkline/v1/message.proto",
    "proto/trunkline/v1/topic.proto",
    "proto/trunkline/v1/producer.proto",
    "proto/trunkline/v1/consumer.proto",
    "proto/trunkline/v1/subscription.proto",
    "proto/trunkline/v1/overview.proto",
];

const PACKAGE: &str = "trunkline.v1";

/// Fields that the broker and the client library leave encoded, and decode or encode themselves: the
/// names in a publish request, so that none is copied, and the messages for a consumer, so that
/// messages for many consumers are encoded once.
const RAW_FIELDS: [(&str, &str); 4] = [
    ("PublishRequest", "topic"),
    ("PublishRequest", "producer_id"),
    ("ConsumeResponse", "batch"),
    ("Delivery", "batch"),
];

/// A map that the broker decodes entry by entry. This lets it refuse an entry that is not UTF-8 with
/// the name of its field, whereas prost would fail to decode the whole request and end its stream.
const RAW_MAP: (&str, &str) = ("NewMessage", "HeadersEntry");

/// What a new message is called before its headers are counted.
const UNBOUNDED_MESSAGE: &str = "UnboundedMessage";

/// Requests whose labels the broker counts while it decodes them.
const BOUNDED: [&str; 2] = ["CreateTopicRequest", "UpdateTopicRequest"];

/// Messages whose fields the broker and the client library know by their numbers, each with the
/// module for them.
const NUMBERED: [(&str, &str); 6] = [
    ("MessageBatch", "message_batch"),
    ("Message", "message"),
    ("NewMessage", "new_message"),
    ("PublishRequest", "publish_request"),
    ("CreateTopicRequest", "create_topic_request"),
    ("UpdateTopicRequest", "update_topic_request"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    machine::inspect();
    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS)?
        .file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("trunkline.protoset"), descriptors.encode_to_vec())?;
    fs::write(out.join("field_numbers.rs"), field_numbers(&descriptors))?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors.clone())?;
    compile_raw(descriptors, out.join("raw"))
}

/// A module for each numbered message, with a constant for each of its fields.
fn field_numbers(descriptors: &FileDescriptorSet) -> String {
    let files = descriptors.file.iter().filter(|file| file.package() == PACKAGE);
    let messages: Vec<_> = files.flat_map(|file| &file.message_type).collect();
    let module = |(name, module): (&str, &str)| {
        let message = messages.iter().find(|message| message.name() == name);
        let fields = message.into_iter().flat_map(|message| &message.field);
        let constants = fields.map(|field| {
            format!("pub const {}: u32 = {};\n", field.name().to_uppercase(), field.number())
        });
        format!("pub mod {module} {{\n{}}}\n", constants.collect::<String>())
    };
    NUMBERED.map(module).concat()
}

/// Compiles the services a second time, with the raw fields. All other messages are those of
/// `crate::proto`.
fn compile_raw(mut descriptors: FileDescriptorSet, out: PathBuf) -> Result<(), Box<dyn Error>> {
    assert_publish_requests_are_alike(&descriptors);
    let mut config = tonic_prost_build::configure().bytes(".").btree_map(".").out_dir(&out);
    // Stands for the request of both publishing calls, which have the same fields.
    let publish = "crate::proto::Bounded<crate::proto::raw::PublishRequest>";
    config = config.extern_path(format!(".{PACKAGE}.PublishStreamRequest"), publish);
    let message = format!("crate::proto::Bounded<crate::proto::raw::{UNBOUNDED_MESSAGE}>");
    config = config.extern_path(new_message(), message);
    let raw = raw_messages(&descriptors);
    for file in descriptors.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        // It has no entry for the message that replaces a map.
        file.source_code_info = None;
        for message in &mut file.message_type {
            make_raw(message);
            if !raw.contains(message.name()) {
                let (name, mut path) =
                    (message.name(), format!("crate::proto::{}", message.name()));
                if BOUNDED.contains(&name) {
                    path = format!("crate::proto::Bounded<{path}>");
                }
                config = config.extern_path(format!(".{PACKAGE}.{name}"), path);
            }
        }
        let unbounded = file.message_type.iter().find(|message| message.name() == RAW_MAP.0);
        file.message_type.extend(unbounded.cloned().map(unbounded_message));
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

/// The names of the messages that have raw fields, or hold a message that does.
fn raw_messages(descriptors: &FileDescriptorSet) -> BTreeSet<String> {
    let files = descriptors.file.iter().filter(|file| file.package() == PACKAGE);
    let messages: Vec<_> = files.flat_map(|file| &file.message_type).collect();
    let mut raw: BTreeSet<String> =
        RAW_FIELDS.iter().chain([&RAW_MAP]).map(|(message, _)| (*message).to_owned()).collect();
    loop {
        let is_raw = |field: &FieldDescriptorProto| {
            let name = field.type_name().strip_prefix(&format!(".{PACKAGE}."));
            name.is_some_and(|name| raw.contains(name))
        };
        let holders = messages.iter().filter(|message| message.field.iter().any(is_raw));
        let holders: Vec<_> = holders.map(|message| message.name().to_owned()).collect();
        let before = raw.len();
        raw.extend(holders);
        if raw.len() == before {
            return raw;
        }
    }
}

/// Makes a message's listed fields raw.
fn make_raw(message: &mut DescriptorProto) {
    let name = message.name().to_owned();
    let raw = |field: &&mut FieldDescriptorProto| RAW_FIELDS.contains(&(&name, field.name()));
    message.field.iter_mut().filter(raw).for_each(make_bytes);
    let mut entries = message.nested_type.iter_mut();
    if let Some(entry) = entries.find(|entry| RAW_MAP == (&name, entry.name())) {
        make_entry_raw(entry);
    }
}

/// The message whose map is raw: messages that hold it hold the raw one.
fn new_message() -> String {
    format!(".{PACKAGE}.{}", RAW_MAP.0)
}

/// The fields of a new message, which `NewMessage` wraps.
fn unbounded_message(mut message: DescriptorProto) -> DescriptorProto {
    message.name = Some(UNBOUNDED_MESSAGE.to_owned());
    for field in &mut message.field {
        if let Some(entry) = field.type_name().strip_prefix(&new_message()) {
            field.type_name = Some(format!(".{PACKAGE}.{UNBOUNDED_MESSAGE}{entry}"));
        }
    }
    message
}

/// Makes a map's entries ordinary messages of bytes, which are encoded in the same way.
fn make_entry_raw(entry: &mut DescriptorProto) {
    entry.options = None;
    entry.field.iter_mut().for_each(make_bytes);
}

/// Makes a string or a message bytes, which are encoded in the same way.
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

/// Gives both publishing calls one request type, as their requests have the same fields.
fn share_publish_request(method: &mut MethodDescriptorProto) {
    if method.name() == "Publish" {
        method.input_type = Some(format!(".{PACKAGE}.PublishStreamRequest"));
    }
}
