# `multiple_of: :name`: of the number that this method gives, if it gives one.
class MultipleOfValidator < ActiveModel::EachValidator
  def validate_each(record, attribute, value)
    step = record.public_send(options[:with])
    return if step.nil? || value.blank? || record.errors.include?(attribute)
    return if (BigDecimal(value.to_s) % step).zero?

    record.errors.add(attribute, "must be a multiple of #{step.to_s("F").delete_suffix(".0")}")
  end

  def check_validity!
    raise ArgumentError, "name a method" unless options[:with].is_a?(Symbol)
  end
end
