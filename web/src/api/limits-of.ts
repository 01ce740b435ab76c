import { LIMITS } from "./limits";

type Forms = typeof LIMITS;
export interface Limit {
  maxLength?: number;
  min?: number;
  max?: number;
  maxItems?: number;
}

/** What the server's schema allows at this path of a request: goes into the field as it is. */
export const limitOf = <F extends keyof Forms>(form: F, path: keyof Forms[F] & string): Limit => LIMITS[form][path] as Limit;

/** The same without what an <input> does not know. */
export function inputLimits<F extends keyof Forms>(form: F, path: keyof Forms[F] & string) {
  const { maxLength, min, max } = limitOf(form, path);
  return { maxLength, min, max };
}
