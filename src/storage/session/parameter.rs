//! Values that statements are given, with their SQL types.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};

/// A value that a statement is given.
pub(crate) trait Parameter: Sync {
    fn value(&self) -> &(dyn ToSql + Sync);
    fn sql_type(&self) -> Type;
}

macro_rules! parameter {
    ($rust:ty, $sql:ident) => {
        impl Parameter for $rust {
            fn value(&self) -> &(dyn ToSql + Sync) {
                self
            }

            fn sql_type(&self) -> Type {
                Type::$sql
            }
        }
    };
}

macro_rules! parameters {
    ($($rust:ty: $one:ident, $many:ident;)*) => {$(
        parameter!($rust, $one);
        parameter!(Option<$rust>, $one);
        parameter!(Vec<$rust>, $many);
        parameter!(Vec<Option<$rust>>, $many);
        parameter!(Option<Vec<Option<$rust>>>, $many);
    )*};
}

parameters! {
    bool: BOOL, BOOL_ARRAY;
    i32: INT4, INT4_ARRAY;
    i64: INT8, INT8_ARRAY;
    &str: TEXT, TEXT_ARRAY;
    String: TEXT, TEXT_ARRAY;
    &[u8]: BYTEA, BYTEA_ARRAY;
    SystemTime: TIMESTAMPTZ, TIMESTAMPTZ_ARRAY;
}
