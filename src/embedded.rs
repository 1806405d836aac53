//! A private PostgreSQL for a broker that was given no database.
