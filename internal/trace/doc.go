// Package trace says which request something was done for: by the request's id in the log,
// and by the steps of a trace (OpenTelemetry), if the request is traced.
//
// A context carries both. Where there is no trace, a step costs a look into the context, so
// that the packages below need not know whether traces are on. Nothing secret gets into a
// step: its name and its attributes are fixed, apart from routes, statuses, codes of errors
// and texts of SQL, whose parameters are left out.
package trace
