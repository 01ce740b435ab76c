import { type InputHTMLAttributes, type ReactNode, type SelectHTMLAttributes, type TextareaHTMLAttributes, useId } from "react";
import { cx } from "./cx";

interface Around {
  label: string;
  hint?: ReactNode;
  error?: string;
  hideLabel?: boolean;
}

function Wrap({ id, label, hint, error, hideLabel, className, children }: Around & { id: string; className?: string; children: ReactNode }) {
  return (
    <div className={className}>
      <label htmlFor={id} className={hideLabel ? "sr-only" : "mb-1 block text-[13px] font-medium text-muted"}>
        {label}
      </label>
      {children}
      {hint && (
        <p id={`${id}-hint`} className="mt-1 text-xs text-muted">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} role="alert" className="mt-1 text-[13px] text-bad">
          {error}
        </p>
      )}
    </div>
  );
}

const about = (id: string, { hint, error }: Around) =>
  ({
    id,
    "aria-invalid": error ? true : undefined,
    "aria-describedby": [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined,
  }) as const;

export function Field({ label, hint, error, hideLabel, className, options, ...input }: Around & { options?: string[] } & InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  return (
    <Wrap {...{ id, label, hint, error, hideLabel, className }}>
      <input {...about(id, { label, hint, error })} list={options?.length ? `${id}-list` : undefined} className="field" {...input} />
      {options?.length ? (
        <datalist id={`${id}-list`}>
          {options.map((o) => (
            <option key={o} value={o} />
          ))}
        </datalist>
      ) : null}
    </Wrap>
  );
}

export function Select({ label, hint, error, hideLabel, className, children, ...select }: Around & SelectHTMLAttributes<HTMLSelectElement>) {
  const id = useId();
  return (
    <Wrap {...{ id, label, hint, error, hideLabel, className }}>
      <select {...about(id, { label, hint, error })} className={cx("field")} {...select}>
        {children}
      </select>
    </Wrap>
  );
}

export function TextArea({ label, hint, error, hideLabel, className, code, ...area }: Around & { code?: boolean } & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  const id = useId();
  return (
    <Wrap {...{ id, label, hint, error, hideLabel, className }}>
      <textarea {...about(id, { label, hint, error })} className={cx("field field-sizing-content max-h-[40dvh] min-h-15 resize-y", code && "font-mono text-[13px]")} {...area} />
    </Wrap>
  );
}

export function Check({ label, hint, error, className, ...input }: Around & InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  return (
    <div className={className}>
      <label className="flex items-start gap-2">
        <input type="checkbox" {...about(id, { label, hint, error })} className="mt-0.5 size-4 shrink-0 accent-(--accent-fill)" {...input} />
        <span>{label}</span>
      </label>
      {hint && (
        <p id={`${id}-hint`} className="mt-0.5 pl-6 text-xs text-muted">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} role="alert" className="mt-0.5 pl-6 text-[13px] text-bad">
          {error}
        </p>
      )}
    </div>
  );
}
