# A client says when the next piece of a stream may be written: nothing here depends on time.
module Steps
  PATIENCE_S = 20
  QUEUES = Concurrent::Map.new

  def self.allow(name)
    queue(name).push(true)
  end

  def self.wait(name)
    Timeout.timeout(PATIENCE_S) { queue(name).pop }
  end

  def self.queue(name)
    QUEUES.compute_if_absent(name) { Queue.new }
  end
end
