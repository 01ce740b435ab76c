import type { components, operations } from "./schema";

export type Schemas = components["schemas"];
export type Session = Schemas["SessionSummary"];
export type SessionDetail = Schemas["SessionDetail"];
export type SessionEvent = Schemas["SessionEvent"];
export type SessionState = Session["state"];
export type Approval = Schemas["Approval"];
export type Runner = Schemas["RunnerInfo"];
export type Environment = Schemas["Environment"];

type Body<R> = R extends { content: { "application/json": infer B } } ? B : never;
type Good<R> = R extends { 200: infer A } ? Body<A> : R extends { 201: infer A } ? Body<A> : R extends { 202: infer A } ? Body<A> : never;

/** What an operation answers, without the envelope. */
export type Answer<K extends keyof operations> =
  Good<operations[K]["responses"]> extends { success: true; data: infer D } ? D : Good<operations[K]["responses"]>;
export type Query<K extends keyof operations> = NonNullable<operations[K]["parameters"]["query"]>;
export type Input<K extends keyof operations> = operations[K] extends { requestBody?: infer B } ? Body<NonNullable<B>> : never;

export type Harness = NonNullable<Query<"listSessions">["providerId"]>;
